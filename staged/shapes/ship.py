"""Put a trained miniature among the checkpoints that come with the package."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from staged.model import checkpoint
from staged.model.stored_weights import AUTOENCODER, WEIGHTS
from staged.shapes.card import CARD, RECORD, card, read_result
from staged.shapes.miniature import CHECKPOINTS


def ship(
    run: Path, name: str, *, commands: Sequence[str], results: Sequence[Path], note: str = ""
) -> Path:
    """Store a finished run's checkpoint in bfloat16, with its record and its card.

    The autoencoder is not stored again: all miniatures share one.

    Args:
        run: Folder of a training run with its `checkpoint` and `settings.yaml`.
        name: `base` or `staged`.
        commands: What made it, in order.
        results: `result.json` files of evaluations of it.
        note: What else a reader of the record must know.

    Returns:
        The checkpoint's folder.

    Raises:
        ValueError: The run has no finished checkpoint, it does not share the autoencoder, or a
            result is none of `staged eval`. What was shipped before is then as it was.
    """
    settings = run / "settings.yaml"
    if not settings.is_file():
        raise ValueError(f"{run} is no run of `staged train`: it has no settings.yaml")
    loaded = checkpoint.load(run / "checkpoint")
    shared = checkpoint.load_autoencoder(CHECKPOINTS, loaded.config.autoencoder)
    for key, tensor in shared.state_dict().items():
        if not torch.equal(tensor, loaded.autoencoder.state_dict()[key]):
            raise ValueError(f"{run} was trained with another autoencoder than {CHECKPOINTS}")
    # All that can be wrong is read before the checkpoint that stands there goes.
    record: dict[str, Any] = {
        "commands": list(commands),
        "settings": settings.read_text(encoding="utf-8").rstrip("\n").split("\n"),
        "data": (run / "data.sha256").read_text(encoding="utf-8").strip(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "note": note,
        "results": [read_result(path) for path in results],
    }
    text = card(name, record)
    folder = checkpoint.save(
        CHECKPOINTS / name,
        model=loaded.model,
        autoencoder=loaded.autoencoder,
        tokenizer=loaded.tokenizer,
        flows=loaded.flows,
        dtype=torch.bfloat16,
    )
    (folder / AUTOENCODER).unlink()
    record["weights_sha256"] = hashlib.sha256((folder / WEIGHTS[0]).read_bytes()).hexdigest()
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / CARD).write_text(text, encoding="utf-8")
    return folder
