"""Two machines, as network namespaces with a cable between them: one is lost and comes back."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rank_processes import train_on
from training import World, assert_same, build, made

from staged.settings import save_resolved

ROOT = Path(__file__).parents[1]
ADDRESSES = ("10.77.0.1", "10.77.0.2")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None,
        reason="needs root and iproute2 for network namespaces",
    ),
]


@pytest.fixture
def nodes() -> Iterator[tuple[str, str]]:
    """Names of two namespaces that reach one another and nothing else."""
    names = (f"node0-{os.getpid()}", f"node1-{os.getpid()}")
    ends = (f"v0-{os.getpid()}", f"v1-{os.getpid()}")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def start_node(number: int, name: str, job: Path, log: Path) -> subprocess.Popen[bytes]:
    """`torchrun` in a namespace, one rank, as docs/launch.md says."""
    end = f"v{number}-{name.partition('-')[2]}"
    command = [
        *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "5"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:29400", "--rdzv-id", "job"),
        *("--rdzv-conf", f"is_host={1 - number}", "--local-addr", ADDRESSES[number]),
        *("-m", "train", str(job)),
    ]
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": end,
        # Without it the address of a round's store is told in the first round only, and a machine
        # that comes back waits for it in vain.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }
    with log.open("ab") as said:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=said, stderr=said, env=environment, start_new_session=True
        )


def wait_for(condition: object, *processes: subprocess.Popen[bytes], seconds: float = 300) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        assert all(process.poll() is None for process in processes), "one ended"
        time.sleep(0.1)


def kill_node(process: subprocess.Popen[bytes], name: str) -> None:
    """Everything that runs in a namespace, at once, as when a machine loses its power."""
    found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
    for pid in found.stdout.split():
        os.kill(int(pid), signal.SIGKILL)
    process.kill()
    process.wait()


def test_a_machine_that_is_lost_and_comes_back_continues_bit_for_bit(
    nodes: tuple[str, str], tmp_path: Path
) -> None:
    world: World = build(tmp_path / "world")
    job = world.settings(
        tmp_path / "out", num_steps=100, packs_per_step=2, checkpoint_every_steps=2
    )
    save_resolved(job, tmp_path / "job.yaml")
    logs = [tmp_path / "node0.log", tmp_path / "node1.log"]

    def state() -> int:
        return max([0, *(int(path.name) for path in job.out.glob("state/[0-9]*"))])

    first, second = (
        start_node(n, name, tmp_path / "job.yaml", logs[n]) for n, name in enumerate(nodes)
    )
    try:
        wait_for(lambda: state() >= 4, first, second)
        kill_node(second, nodes[1])
        wait_for(lambda: "has lost another process of this run" in logs[0].read_text(), first)
        reached = state()
        assert reached < job.num_steps
        second = start_node(1, nodes[1], tmp_path / "job.yaml", logs[1])
        assert first.wait(1200) == 0 and second.wait(1200) == 0, logs[0].read_text()
    finally:
        for process, name in zip((first, second), nodes, strict=True):
            kill_node(process, name)
    print(f"killed after the state of step {reached}; all {job.num_steps} steps were then taken")
    whole = world.settings(
        tmp_path / "whole", num_steps=100, packs_per_step=2, checkpoint_every_steps=2
    )
    train_on(2, whole)
    assert_same(made(job.out), made(whole.out))
