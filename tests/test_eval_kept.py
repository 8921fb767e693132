"""Files of lines that fill up: by several processes, and by one process at a time each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FILLER = """
import json, sys
from pathlib import Path
from eval.kept import KeptLine, fill
from staged.jobs.rank import Rank

def read(line, place):
    return KeptLine((str(json.loads(line)["n"]),), False)

def produce(places, keep):
    for place in places:
        keep(place, {"n": place})
        if sys.argv[3] == "slow":
            print("begun", flush=True)
            sys.stdin.readline()

rank = Rank(number=int(sys.argv[2]), world_size=2)
try:
    filled = fill(Path(sys.argv[1]), [(str(n),) for n in range(6)], read, produce, rank=rank)
except ValueError as error:
    sys.exit(str(error))
print(filled.new, filled.kept, flush=True)
"""


def filling(out: Path, rank: int, pace: str = "fast") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FILLER, str(out), str(rank), pace]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_two_processes_with_one_rank_do_not_write_into_each_other(tmp_path: Path) -> None:
    out = tmp_path / "lines.jsonl"
    first = filling(out, 0, "slow")
    assert first.stdout is not None and first.stdout.readline() == "begun\n"
    twin, other = filling(out, 0), filling(out, 1)
    _, said = twin.communicate()
    assert twin.returncode == 1 and "another process is writing" in said
    assert other.communicate()[0] == "3 0\n" and other.returncode == 0
    first.kill()
    first.communicate()
    again = filling(out, 0)
    assert again.communicate()[0] == "2 1\n"  # the line that the killed one wrote is kept
    assert [json.loads(line)["n"] for line in out.read_text().splitlines()] == list(range(6))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_keeps_nobody_out(tmp_path: Path, rank: int) -> None:
    out = tmp_path / "lines.jsonl"
    first = filling(out, rank, "slow")
    assert first.stdout is not None and first.stdout.readline() == "begun\n"
    first.kill()
    first.communicate()
    assert filling(out, rank).communicate()[0] == "2 1\n"
