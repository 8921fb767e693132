"""Everything worth knowing about a GPU in one run: correctness, speed, memory; one JSON.

    python benchmarks/gpu.py --out benchmarks/results/NAME.json

Needs the repository and torch, and no network. Each section stands alone: what is missing there is
skipped with the reason, what fails is recorded and the rest goes on. Prints one JSON line for each
measurement. Exit code: 0, or 1 if a section failed, or 2 without the device asked for.
"""

import argparse
import datetime
import gc
import importlib
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = {
    "environment": "benchmarks.parts.environment",
    "golden": "benchmarks.parts.golden",
    "generation": "benchmarks.parts.generation",
    "quantized": "benchmarks.parts.quantized",
    "miniature": "benchmarks.parts.miniature",
    "layers": "benchmarks.parts.layers",
    "training": "benchmarks.parts.training",
    "attention": "benchmarks.parts.attention",
    "compiled": "benchmarks.parts.compiled",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections asked for; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # From a bare checkout nothing is installed; and before this folder, which has a `train.py`.
    sys.path.insert(0, str(ROOT))
    import torch

    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here; --device cpu --tiny tries the script itself", file=sys.stderr)
        return 2
    document: dict[str, Any] = {
        "schema": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": arguments.device,
        "tiny": arguments.tiny,
        "sections": {},
    }
    began = time.monotonic()
    for name in dict.fromkeys(arguments.only or SECTIONS):
        if time.monotonic() - began > arguments.limit_s:
            reason = f"not begun: {arguments.limit_s} s had passed"
            document["sections"][name] = {"status": "skipped", "reason": reason}
        else:
            document["sections"][name] = _run(name, device, arguments.tiny)
        section = document["sections"][name]
        print(f"{name}: {section['status']} {section.get('reason', '')}", file=sys.stderr)
        _write(document, arguments.out)  # whatever ends this process, what was measured stays
    failed = [n for n, section in document["sections"].items() if section["status"] == "failed"]
    if failed:
        print(f"FAILED: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, device: Any, tiny: bool) -> dict[str, Any]:
    from benchmarks.parts.harness import TRACEBACK_LINES, Recorder, Setup, Skip

    record = Recorder(name)
    outcome: dict[str, Any] = {"status": "ok"}
    began = time.monotonic()
    try:
        importlib.import_module(SECTIONS[name]).run(Setup(device=device, tiny=tiny), record)
    except Skip as reason:
        outcome = {"status": "skipped", "reason": str(reason)}
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and not _is_ours(error.name):
            return {"status": "skipped", "reason": f"needs the package {error.name}"}
        tail = traceback.format_exc().splitlines()[-TRACEBACK_LINES:]
        outcome = {"status": "failed", "reason": repr(error)[:500], "traceback": tail}
        print("\n".join(tail), file=sys.stderr)
    if record.failed and outcome["status"] == "ok":
        outcome = {"status": "failed", "reason": f"did not measure {', '.join(record.failed)}"}
    outcome["seconds"] = round(time.monotonic() - began, 2)
    outcome["measurements"] = record.made
    _free(device)
    return outcome


def _is_ours(module: str | None) -> bool:
    return module is None or module.partition(".")[0] in ("benchmarks", "staged", "train")


def _free(device: Any) -> None:
    """Leave nothing of a section in memory, a failed one's included."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _write(document: dict[str, Any], out: Path | None) -> None:
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    from staged.jobs.files import write_whole

    write_whole(out, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks/gpu.py", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--out", type=Path, help="JSON file, rewritten after every section")
    add("--only", action="append", choices=list(SECTIONS), help="this section; may be repeated")
    add("--device", default="cuda", help="torch device (default: %(default)s)")
    add("--tiny", action="store_true", help="tiny sizes, to try the script itself")
    add("--limit-s", type=float, default=450, help="begin no section after this (%(default)s s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
