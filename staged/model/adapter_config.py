"""`adapter_config.json`, as PEFT writes it: ranks and scales of a LoRA's modules.

Ranks and alphas that differ between modules stand in `rank_pattern` and `alpha_pattern` (regular
expressions for ends of names). What PEFT knows beyond plain LoRA on linear layers is refused by
name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staged import strict_json
from staged.model.lora import LowRank

CONFIG = "adapter_config.json"

_MAX_CONFIG_BYTES = 1 << 22
_MAX_PATTERN_CHARS, _MAX_REPEATS = 400, 4
_LAYERS = "language_model\\.model\\.layers\\.\\d+"
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "use_dora": (False,),
    "use_qalora": (False,),
    "lora_bias": (False,),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "layer_replication": (None, []),
    "alora_invocation_tokens": (None, []),
}
"""Keys of a configuration whose other values mean more than plain LoRA."""


@dataclass(frozen=True)
class AdapterConfig:
    """What a LoRA's folder says of it.

    Attributes:
        path: Of the file.
        fields: What stands there.
    """

    path: Path
    fields: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> AdapterConfig:
        """Read the file.

        Raises:
            ValueError: It is missing or damaged, or is of more than plain LoRA.
        """
        path = folder / CONFIG
        missing = "; a LoRA is a folder with that and its tensors"
        fields = strict_json.read(path, max_bytes=_MAX_CONFIG_BYTES, missing=missing)
        if not isinstance(fields, dict) or fields.get("peft_type") != "LORA":
            kind = fields.get("peft_type") if isinstance(fields, dict) else fields
            raise ValueError(f"{path}: peft_type is {kind!r}; only LORA is read")
        for key, plain in _PLAIN.items():
            if fields.get(key, plain[0]) not in plain:
                raise ValueError(f"{path}: {key} is {fields[key]!r}; only plain LoRA is read")
        return cls(path, fields)

    @property
    def base(self) -> str:
        """What it says that it was trained on; empty for nothing."""
        base = self.fields.get("base_model_name_or_path")
        return base if isinstance(base, str) else ""

    def low_rank(self, module: str, rank: int) -> LowRank:
        """Rank and scale of a module.

        Args:
            module: Upstream's name of it.
            rank: By its tensors.

        Raises:
            ValueError: The file says another rank, or no alpha.
        """
        said = self._of(module, "rank_pattern", "r")
        if said != rank:
            raise ValueError(f"{self.path}: {module} is of rank {rank}, and {said!r} stands there")
        alpha = self._of(module, "alpha_pattern", "lora_alpha")
        if isinstance(alpha, bool) or not isinstance(alpha, int | float):
            raise ValueError(f"{self.path}: lora_alpha of {module} is {alpha!r}; no number")
        root = rank**0.5 if self.fields.get("use_rslora") else rank
        return LowRank(rank=rank, scale=alpha / root)

    def _of(self, module: str, key: str, otherwise: str) -> Any:
        """The value for a module: of the first pattern that fits the end of its name."""
        patterns = self.fields.get(key) or {}
        if not isinstance(patterns, dict):
            raise ValueError(f"{self.path}: {key} is {patterns!r}; no mapping")
        for pattern, value in patterns.items():
            # They come from outside, and repeats within repeats can take a matcher for ever.
            repeats = len(re.findall(r"[*+{]", pattern))
            nested = re.search(r"\)[*+{]", pattern)
            if len(pattern) > _MAX_PATTERN_CHARS or repeats > _MAX_REPEATS or nested:
                raise ValueError(f"{self.path}: {key} has {pattern[:80]!r}, which is too intricate")
            try:
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return value
            except re.error as error:
                raise ValueError(f"{self.path}: {key} has {pattern!r}: {error}") from error
        return self.fields.get(otherwise)


def config_fields(low_ranks: Mapping[str, LowRank], base: str) -> dict[str, Any]:
    """PEFT's configuration of exactly these modules.

    Args:
        low_ranks: By upstream's name of the module; all layers have the same.
        base: What they were trained on.
    """
    by_end = {
        re.sub(rf"^{_LAYERS}\.", "", module): low_rank for module, low_rank in low_ranks.items()
    }
    most, _ = Counter(by_end.values()).most_common(1)[0]
    ends = {re.escape(end): low_rank for end, low_rank in sorted(by_end.items())}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": most.rank,
        "lora_alpha": _alpha(most),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "target_modules": f"{_LAYERS}\\.(?:{'|'.join(ends)})",
        "rank_pattern": {
            end: low_rank.rank for end, low_rank in ends.items() if low_rank.rank != most.rank
        },
        "alpha_pattern": {
            end: _alpha(low_rank)
            for end, low_rank in ends.items()
            if _alpha(low_rank) != _alpha(most)
        },
    }


def _alpha(low_rank: LowRank) -> float:
    alpha = low_rank.scale * low_rank.rank
    return int(alpha) if alpha == int(alpha) else alpha
