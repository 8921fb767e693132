"""A command that shares its work, as tasks of a Ray cluster (pip install staged[ray]).

The tasks exchange nothing but files, so the cluster needs a file system in common, and there may be
more tasks than run at once. Where there are GPUs, each task has one, unless it is told otherwise.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from staged.command_line import Parser, UsageError, amount
from staged.command_line.applications import prefer_ours
from staged.first_line import first_line


def add_arguments(parser: Parser, shared: Sequence[str]) -> None:
    """Let a parser take the number of tasks, and the command that they share.

    Args:
        parser: Of the command in front.
        shared: Commands that take `--rank` and `--world-size`.
    """
    add = parser.add_argument
    add("--address", help="of the cluster (default: RAY_ADDRESS, else a local one)")
    add("--cpus", type=amount, default=1.0, metavar="N", help="processors that a task asks for")
    add(
        "--gpus",
        type=gpus,
        metavar="N",
        help="GPUs, or the share of one, that a task asks for (default: 1 where there are any)",
    )
    add("processes", type=int, metavar="N", help="tasks, of which some may wait")
    add("command", choices=shared, help="what each does a share of")
    add("arguments", nargs=argparse.REMAINDER, help="of that command")


def gpus(text: str) -> float:
    """Read a number of GPUs that one process asks for, or its share of one.

    Raises:
        argparse.ArgumentTypeError: it is none; Ray shares one GPU, and no more.
    """
    value = amount(text)
    if value > 1 and value % 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a share of one GPU, or a whole number")
    return value


@contextmanager
def cluster(options: argparse.Namespace) -> Iterator[Any]:
    """Join the cluster, for as long as its tasks take.

    Args:
        options: Of a parser with `add_arguments`.

    Yields:
        The module `ray`.

    Raises:
        UsageError: fewer than one task, or the extra is not installed.
    """
    if options.processes < 1:
        raise UsageError(f"{options.processes} processes; give at least 1")
    try:
        import ray
    except ImportError:
        raise UsageError("Ray is not installed: pip install 'staged[ray]'") from None

    joins = not ray.is_initialized()
    if joins:
        ray.init(address=options.address)
    try:
        yield ray
    finally:
        if joins:
            ray.shutdown()


def num_gpus(ray: Any) -> float:
    """GPUs of all machines that are in the cluster now."""
    return sum(_gpus_of_machines(ray))


def require_gpus(ray: Any, option: str, each: float, number: int = 1, *, beside: float = 0) -> None:
    """Refuse what would wait for ever, since the machines of the cluster have no room for it.

    Args:
        ray: See `cluster`.
        option: What asks for them, for the message.
        each: GPUs, or the share of one; all on one machine.
        number: Of those that are to run at once.
        beside: GPUs that another thing needs at the same time, on one machine too.

    Raises:
        UsageError: there is no room.
    """
    if not each:
        return
    machines = _gpus_of_machines(ray)
    if _room(machines, each, beside) < number:
        needed = f"{number} with {each:g} GPU each" if number > 1 else f"{each:g} GPU"
        besides = f", with {beside:g} for a task beside them" if beside else ""
        kinds = sorted(Counter(machines).items(), reverse=True)
        parted = ", ".join(f"{count} with {gpus:g}" for gpus, count in kinds)
        where = f" (machines: {parted})" if len(machines) > 1 else ""
        raise UsageError(
            f"{option} asks for {needed}{besides}, and the cluster has {sum(machines):g}{where}: "
            "ask for fewer, as each needs its own on one machine, or for shares of one (0.5)"
        )


def _gpus_of_machines(ray: Any) -> list[float]:
    """GPUs of each machine that has any."""
    gpus = (node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"])
    return [float(number) for number in gpus if number]


def _room(machines: Sequence[float], each: float, beside: float) -> int:
    """How many find room on machines, with another thing where it takes the least of it."""
    rooms = [_room_of_one(free, each) for free in machines]
    if not beside:
        return sum(rooms)
    costs = [
        room - _room_of_one(free - beside, each)
        for free, room in zip(machines, rooms, strict=True)
        if free >= beside
    ]
    return sum(rooms) - min(costs) if costs else 0


def _room_of_one(free: float, each: float) -> int:
    """How many find room on a machine: shares lie on one GPU each, also on what is left of one."""
    if each >= 1:
        return int(free / each + 1e-9)
    whole = int(free + 1e-9)
    return whole * int(1 / each + 1e-9) + int((free - whole) / each + 1e-9)


def share(
    ray: Any,
    application: str,
    options: argparse.Namespace,
    *,
    retries: int,
    by_default: float | None = None,
    more: Sequence[str] = (),
) -> int:
    """Run the shares of a command, and wait for all.

    Args:
        ray: See `cluster`.
        application: Package whose `__main__.main` runs the command.
        options: Of a parser with `add_arguments`.
        retries: How often a task whose worker or machine died is started again; it goes on with
            what stands in its files. An error of the command itself is not repeated.
        by_default: GPUs of a task where the options say nothing; one, where there are any.
        more: Further arguments of the command.

    Returns:
        The highest exit status of all tasks.

    Raises:
        UsageError: a task asks for more GPUs than a machine has.
        OSError: Ray gave a task up, such as one whose worker died too often.
        Exception: what a task failed with.
    """
    each = options.gpus
    if each is not None:
        require_gpus(ray, "--gpus", each)
    elif (each := by_default) is None:
        each = min(num_gpus(ray), 1)
    task = ray.remote(num_cpus=options.cpus, num_gpus=each, max_retries=retries)(_run)
    command = (options.command, *options.arguments, *more)
    running = [
        task.remote(application, os.getcwd(), command, rank, options.processes)
        for rank in range(options.processes)
    ]
    try:
        return int(max(result(ray, running)))
    except ray.exceptions.RayTaskError:
        raise
    except ray.exceptions.RayError as error:
        raise OSError(
            f"Ray gave a task up ({type(error).__name__}: {first_line(error)}); the "
            "same command goes on from what is saved"
        ) from None
    finally:
        for one in running:  # they would go on where the cluster does; those that ended stay so
            ray.cancel(one, force=True)


def result(ray: Any, awaited: Any) -> Any:
    """Wait for what was asked for, and raise errors as they were raised over there.

    Args:
        ray: See `cluster`.
        awaited: What `remote` returned, or a list of it.

    Raises:
        Exception: as over there; Ray's own has its traceback for a message.
    """
    try:
        return ray.get(awaited)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise


def _run(application: str, folder: str, command: Sequence[str], rank: int, world_size: int) -> int:
    """Run one share where the others' paths mean the same."""
    os.chdir(folder)
    prefer_ours()
    main = import_module(f"{application}.__main__").main
    try:
        return int(main([*command, "--rank", str(rank), "--world-size", str(world_size)]))
    except SystemExit as end:  # of the parser; Ray would take it for a worker that died
        return int(end.code or 0)
