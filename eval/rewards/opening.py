"""From a reward's name to its scorer, weights loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from eval.clip import ClipEmbedder
from eval.rewards import scorers
from eval.rewards.aesthetic import load_head
from eval.rewards.detector import DetectorScorer
from eval.rewards.kinds import CLIP_H_TOKENIZER, weights_of
from eval.rewards.scorers import Scorer
from eval.vqa.local import LocalAnswerer
from staged.devices import AUTO, choose_arithmetic


def open_scorer(name: str, weights: Mapping[str, str | None], *, device: str = AUTO) -> Scorer:
    """Load a reward that is computed in this process.

    Args:
        name: Of the reward.
        weights: Folder or Hub id by name, see `eval.rewards.kinds.WEIGHTS`; what is absent or None
            is by default.
        device: `auto`, or a torch device.

    Raises:
        ValueError: there are no such weights, or they are another model's.
    """
    if name == "detector":
        return DetectorScorer()
    if name == "vqascore":
        return scorers.VqaScorer(LocalAnswerer.load(weights_of(name, weights), device=device))
    source = weights_of("clip" if name in ("clipscore", "aesthetic") else name, weights)
    # PickScore is published without a tokenizer.
    own = name != "pickscore" or (Path(source) / "tokenizer_config.json").is_file()
    # Not the fastest: the scores are those of float32.
    chosen = choose_arithmetic(device, "float32")
    print(chosen.words)
    clip = ClipEmbedder.load(source, source if own else CLIP_H_TOKENIZER, device=chosen.device)
    match name:
        case "clipscore":
            return scorers.clip_score(clip)
        case "pickscore":
            return scorers.pick_score(clip)
        case "hps":
            return scorers.hps(clip)
        case "aesthetic":
            return scorers.aesthetic(clip, load_head(Path(weights_of(name, weights))))
    raise ValueError(f"reward {name!r}; no such reward")
