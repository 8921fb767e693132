"""Read a directory of reference numbers: weights, inputs, outputs and their description."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staged import strict_json
from staged.devices import choose_device
from staged.model.bagel import Inputs
from staged.model.checkpoint import LoadedBagel, load
from staged.model.config import AutoencoderConfig, BagelConfig, TransformerConfig, VisionConfig
from staged.model.images import from_pixels
from staged.model.layout import SpecialTokens
from staged.model.stored_weights import load_tensors

__all__ = ["Golden"]

_MAX_JSON_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Reference numbers and the model that must give them.

    Attributes:
        description: `golden.json`.
        tensors: `golden.safetensors`, on the CPU.
        loaded: The directory's model, read like any checkpoint.
        special: The model's framing tokens.
        device: Where the model is.
        dtype: Type of its weights.
    """

    description: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    loaded: LoadedBagel
    special: SpecialTokens
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def read(
        cls, folder: str | Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Golden":
        """Read a directory and load its model.

        Raises:
            ValueError: A file is missing, damaged, or lacks what is needed; or there is no such
                device.
        """
        folder, chosen = Path(folder), choose_device(device)
        missing = "; is this a directory of reference numbers?"
        description = strict_json.read_object(
            folder / "golden.json", max_bytes=_MAX_JSON_BYTES, missing=missing
        )
        tensors = load_tensors(folder / "golden.safetensors")
        try:
            config = _config(description["config"])
            special = description["config"]["special"]
            tokens = SpecialTokens(
                text_start=special["bos_token_id"],
                text_end=special["eos_token_id"],
                image_start=special["start_of_image"],
                image_end=special["end_of_image"],
                stop=special["eos_token_id"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{folder / 'golden.json'} lacks {error} in its config") from error
        return cls(
            description=description,
            tensors=tensors,
            loaded=load(folder, config=config, device=chosen, dtype=dtype),
            special=tokens,
            device=chosen,
            dtype=dtype,
        )

    def tensor(self, name: str) -> Tensor:
        """A reference tensor.

        Raises:
            ValueError: There is none of that name.
        """
        if name not in self.tensors:
            raise ValueError(f"golden.safetensors lacks {name}")
        return self.tensors[name]

    def image(self, name: str) -> Tensor:
        """A reference image as network input, (3, h, w) in the model's type, on its device."""
        return from_pixels(self.tensor(name).numpy()).to(self.device, self.dtype)

    def inputs(self, patches: Tensor | None = None) -> Inputs:
        """Inputs of a layout without latents: ViT patches only, or text only."""
        config = self.loaded.config
        empty = torch.zeros(0, device=self.device)
        if patches is None:
            patches = empty.new_zeros(0, config.vision.patch_dim, dtype=self.dtype)
        latents = empty.new_zeros(0, config.latent_token_dim, dtype=self.dtype)
        return Inputs(latents=latents, timesteps=empty, patches=patches)

    def named(self, pattern: str) -> list[tuple[str, re.Match[str]]]:
        """Names of the reference tensors that a pattern matches whole, with the matches."""
        matches = ((name, re.fullmatch(pattern, name)) for name in sorted(self.tensors))
        return [(name, match) for name, match in matches if match]

    def grid(self, image: str, cell: int) -> tuple[int, int]:
        """Rows and columns of cells of `cell` pixels in a reference image."""
        height, width, _ = self.tensor(image).shape
        return height // cell, width // cell


def _config(sizes: Mapping[str, Any]) -> BagelConfig:
    """Dimensions from `golden.json`; the loader takes the autoencoder's from its weights."""
    return BagelConfig(
        transformer=TransformerConfig(
            hidden_size=sizes["hidden_size"],
            intermediate_size=sizes["intermediate_size"],
            num_layers=sizes["layers"],
            num_heads=sizes["heads"],
            num_kv_heads=sizes["kv_heads"],
            head_dim=sizes["hidden_size"] // sizes["heads"],
            vocab_size=sizes["vocab_size"],
        ),
        vision=VisionConfig(
            hidden_size=sizes["vit_hidden"],
            intermediate_size=sizes["vit_inter"],
            num_layers=sizes["vit_layers"],
            num_heads=sizes["vit_heads"],
            patch_size=sizes["vit_image_size"] // sizes["vit_side"],
            positions_per_side=sizes["vit_side"],
        ),
        autoencoder=AutoencoderConfig(latent_channels=sizes["z"]),
        max_latent_size=sizes["max_latent_size"],
        vit_max_patches_per_side=sizes["vit_side"],
        timestep_shift=sizes["timestep_shift"],
    )
