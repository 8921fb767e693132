"""Dimensions of a BAGEL model, read from and written to the published files.

A checkpoint folder carries three JSON files: ``config.json`` (how the parts are joined),
``llm_config.json`` (a Qwen2 decoder) and ``vit_config.json`` (a SigLIP tower). Facts that the
published ``config.json`` leaves to the FLUX autoencoder's source (its width, depth and latent
statistics) may stand in ``vae_config``; without them FLUX's own values hold.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from staged import strict_json
from staged.settings.kinds import nearest

__all__ = [
    "CONFIG_FILES",
    "AutoencoderConfig",
    "BagelConfig",
    "TransformerConfig",
    "VisionConfig",
]

CONFIG_FILES = ("config.json", "llm_config.json", "vit_config.json")

# The published vit_config.json counts SigLIP's layers; BAGEL takes features from the one before
# the last and builds no layer after it: built = file + 1 + VIT_SELECT_LAYER.
VIT_SELECT_LAYER = -2

_BUILT = {
    "connector_act": "gelu_pytorch_tanh",
    "interpolate_pos": False,
    "visual_gen": True,
    "visual_und": True,
}
_LLM_BUILT = {
    "hidden_act": "silu",
    "layer_module": "Qwen2MoTDecoderLayer",
    "qk_norm": True,
    "tie_word_embeddings": False,
}
"""What a file says of how the parts are built; there is no other way here."""
_LLM_SIZES = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "vocab_size": "vocab_size",
}
_VIT_SIZES = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_heads": "num_attention_heads",
    "patch_size": "patch_size",
}
"""Our name of a size to that in the file."""
_VAE_KEYS = ("channels", "multipliers", "num_blocks", "scaling_factor", "shift_factor")
_MAX_JSON_BYTES = 1 << 20
_MAX_DIMENSION = 1 << 24  # no size in a config exceeds this; a larger one is a damaged file


def _check_numbers(config: Any, **minimum: float) -> None:
    """Require sizes that are integers from 1, and finite reals above `minimum`, 0 by default."""
    for item in fields(config):
        value, place = getattr(config, item.name), f"{type(config).__name__}.{item.name}"
        least = minimum.get(item.name, 0.0)
        if item.type is int:
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{place} is {value!r}; give an integer")
            if not 1 <= value <= _MAX_DIMENSION:
                raise ValueError(f"{place} is {value}; give 1 to {_MAX_DIMENSION}")
        elif item.type is float:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{place} is {value!r}; give a number")
            if not math.isfinite(value) or value <= least:
                raise ValueError(f"{place} is {value}; it must exceed {least}")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The decoder: Qwen2 with QK-norm and two experts a layer.

    Attributes:
        hidden_size: Width of the residual stream; a multiple of 4 (2-D position tables).
        intermediate_size: Width of the gated MLP.
        num_layers: Decoder layers.
        num_heads: Query heads.
        num_kv_heads: Key and value heads; divides ``num_heads``.
        head_dim: Width of one head; even (rope rotates halves).
        vocab_size: Rows of the token embedding and of the untied head.
        rope_theta: Rope base.
        rms_norm_eps: Epsilon of every RMSNorm, QK-norm included.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range or does not fit another.
        """
        _check_numbers(self)
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 4")
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rope rotates pairs")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The SigLIP NaViT tower.

    Attributes:
        hidden_size: Width; a multiple of ``num_heads``.
        intermediate_size: Width of the MLP.
        num_layers: Layers actually built.
        num_heads: Attention heads.
        patch_size: Pixels on a patch's side.
        positions_per_side: Side of the learned position grid, in patches.
        num_channels: Colour channels.
        layer_norm_eps: Epsilon of every LayerNorm.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int = 14
    positions_per_side: int = 70
    num_channels: int = 3
    layer_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range or does not fit another.
        """
        _check_numbers(self)
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"vision hidden_size {self.hidden_size} is not a multiple of its "
                f"num_heads {self.num_heads}"
            )

    @property
    def patch_dim(self) -> int:
        """Numbers in one flattened patch."""
        return self.num_channels * self.patch_size**2


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """FLUX's convolutional VAE.

    Attributes:
        channels: Width of the first level; a multiple of 32 (group norm has 32 groups).
        multipliers: Width of each level over ``channels``; each level but the last halves the side.
        num_blocks: Residual blocks a level in the encoder (the decoder has one more).
        latent_channels: Channels of the latents.
        scaling_factor: Latents are ``(mean - shift_factor) * scaling_factor``.
        shift_factor: See ``scaling_factor``.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_blocks: int = 2
    latent_channels: int = 16
    scaling_factor: float = 0.3611
    shift_factor: float = 0.1159

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range or does not fit another.
        """
        _check_numbers(self, shift_factor=-math.inf)
        if self.channels % 32:
            raise ValueError(f"autoencoder channels {self.channels} is not a multiple of 32")
        levels = self.multipliers
        if not isinstance(levels, tuple) or not 1 <= len(levels) <= 8:
            raise ValueError(f"autoencoder multipliers {levels!r}: give 1 to 8 integers")
        for level in levels:
            if isinstance(level, bool) or not isinstance(level, int) or not 1 <= level <= 64:
                raise ValueError(f"autoencoder multiplier {level!r}: give an integer from 1 to 64")

    @property
    def downsample(self) -> int:
        """Pixels on the side of one latent."""
        return 1 << (len(self.multipliers) - 1)


@dataclass(frozen=True, kw_only=True)
class BagelConfig:
    """A whole BAGEL.

    Attributes:
        transformer: The decoder.
        vision: The tower for understanding.
        autoencoder: The VAE for generation.
        latent_patch_size: Latents on the side of one generated token.
        max_latent_size: Side of the generated tokens' position table, in tokens.
        vit_max_patches_per_side: Side of the ViT tokens' position table, in patches.
        timestep_shift: Shift of the training time distribution; 1 leaves it unchanged.
    """

    transformer: TransformerConfig
    vision: VisionConfig
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    latent_patch_size: int = 2
    max_latent_size: int = 64
    vit_max_patches_per_side: int = 70
    timestep_shift: float = 1.0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: A field is out of range.
        """
        _check_numbers(self)

    @property
    def latent_token_dim(self) -> int:
        """Numbers in one generated token: latent channels times the patch's area."""
        return self.autoencoder.latent_channels * self.latent_patch_size**2

    @property
    def pixels_per_latent_token(self) -> int:
        """Pixels on the side of one generated token."""
        return self.autoencoder.downsample * self.latent_patch_size

    def check_picture(self, height: int, width: int) -> None:
        """Make sure that a picture of so many pixels can be drawn.

        Raises:
            ValueError: A side is no multiple of a token's, or longer than there are positions for.
        """
        stride = self.pixels_per_latent_token
        longest = stride * self.max_latent_size
        if any(side % stride or not stride <= side <= longest for side in (height, width)):
            near = [min(max(round(s / stride), 1) * stride, longest) for s in (width, height)]
            raise ValueError(
                f"a picture of {width} x {height} pixels: give sides from {stride} to {longest} "
                f"that are multiples of {stride}, such as {near[0]} x {near[1]}"
            )

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Read the three published files of a checkpoint folder.

        Keys that change nothing here (token ids, library versions) are passed over; a key that
        asks for an architecture other than the one built is an error.

        Raises:
            ValueError: A file is missing, malformed, out of range, or describes another model.
        """
        folder = Path(folder)
        top = _Section.read(folder / "config.json")
        llm = _Section.read(folder / "llm_config.json")
        vit = _Section.read(folder / "vit_config.json")
        vae = top.section("vae_config")
        top.expect(**_BUILT)
        return cls(
            transformer=_transformer_from(llm),
            vision=_vision_from(vit),
            autoencoder=_autoencoder_from(vae),
            latent_patch_size=top.integer("latent_patch_size", 2),
            max_latent_size=top.integer("max_latent_size"),
            vit_max_patches_per_side=top.integer("vit_max_num_patch_per_side"),
            timestep_shift=top.number("timestep_shift", 1.0),
        )

    def write(self, folder: str | Path) -> None:
        """Write the three published files into ``folder``, which must exist.

        ``from_folder`` gives back an equal config; upstream's code reads the same files.
        """
        documents = {
            "config.json": _config_document(self),
            "llm_config.json": _llm_document(self.transformer),
            "vit_config.json": _vit_document(self.vision),
        }
        for name, document in documents.items():
            text = json.dumps(document, indent=2, sort_keys=True) + "\n"
            (Path(folder) / name).write_text(text, encoding="utf-8")


def _transformer_from(llm: "_Section") -> TransformerConfig:
    llm.expect(**_LLM_BUILT, use_sliding_window=False)
    llm.expect(attention_bias=True, mlp_bias=False, partial_rotary_factor=1.0)
    llm.expect_each("layer_types", "full_attention")
    sizes = {name: llm.integer(key) for name, key in _LLM_SIZES.items()}
    hidden_size, num_heads = sizes["hidden_size"], sizes["num_heads"]
    if hidden_size % num_heads and "head_dim" not in llm.values:
        raise ValueError(
            f"{llm.place}: hidden_size {hidden_size} is not a multiple of "
            f"num_attention_heads {num_heads}; say head_dim"
        )
    return TransformerConfig(
        **sizes,
        head_dim=llm.integer("head_dim", hidden_size // num_heads),
        rope_theta=_rope_theta(llm),
        rms_norm_eps=llm.number("rms_norm_eps", 1e-6),
    )


def _rope_theta(llm: "_Section") -> float:
    """Rope's base, however a version of transformers spells it.

    Up to version 4 it is `rope_theta` beside `rope_scaling`; from 5 on `rope_parameters` holds
    both. A file that says it nowhere is refused: libraries disagree on the default.
    """
    said = {}
    if llm.values.get("rope_theta") is not None:
        said["rope_theta"] = llm.number("rope_theta")
    for key in ("rope_parameters", "rope_scaling"):
        if llm.values.get(key) is None:
            continue
        rope = llm.section(key)
        rope.only("rope_theta", "rope_type", "type", "partial_rotary_factor")
        rope.expect(rope_type="default", type="default", partial_rotary_factor=1.0)
        if "rope_theta" in rope.values:
            said[f"{key}.rope_theta"] = rope.number("rope_theta")
    if not said:
        raise ValueError(f"{llm.place}: neither rope_theta nor rope_parameters.rope_theta is there")
    if len(set(said.values())) > 1:
        both = " and ".join(f"{key} {value:g}" for key, value in said.items())
        raise ValueError(f"{llm.place}: {both} contradict one another; keep one")
    return next(iter(said.values()))


def _vision_from(vit: "_Section") -> VisionConfig:
    vit.expect(hidden_act="gelu_pytorch_tanh", rope=False, rope_parameters=None)
    sizes = {name: vit.integer(key) for name, key in _VIT_SIZES.items()}
    num_layers = vit.integer("num_hidden_layers") + 1 + VIT_SELECT_LAYER
    if num_layers < 1:
        raise ValueError(f"{vit.place}: num_hidden_layers leaves {num_layers} layers; give 2 up")
    return VisionConfig(
        **sizes,
        num_layers=num_layers,
        positions_per_side=vit.integer("image_size") // sizes["patch_size"],
        num_channels=vit.integer("num_channels", 3),
        layer_norm_eps=vit.number("layer_norm_eps", 1e-6),
    )


def _autoencoder_from(vae: "_Section") -> AutoencoderConfig:
    published = AutoencoderConfig()
    # FLUX's own code and diffusers have other names for these; a name that is not known would
    # leave FLUX's published value standing in its place.
    vae.only("downsample", "z_channels", *_VAE_KEYS)
    config = AutoencoderConfig(
        channels=vae.integer("channels", published.channels),
        multipliers=vae.integers("multipliers", published.multipliers),
        num_blocks=vae.integer("num_blocks", published.num_blocks),
        latent_channels=vae.integer("z_channels"),
        scaling_factor=vae.number("scaling_factor", published.scaling_factor),
        shift_factor=vae.number("shift_factor", published.shift_factor),
    )
    downsample = vae.integer("downsample")
    if downsample != config.downsample:
        raise ValueError(
            f"{vae.place}: downsample {downsample} does not fit the multipliers "
            f"{list(config.multipliers)}, which give {config.downsample}"
        )
    return config


def _config_document(config: BagelConfig) -> dict[str, Any]:
    autoencoder, published = config.autoencoder, AutoencoderConfig()
    vae: dict[str, Any] = {
        "z_channels": autoencoder.latent_channels,
        "downsample": autoencoder.downsample,
    }
    for item in fields(AutoencoderConfig):
        value = getattr(autoencoder, item.name)
        if item.name != "latent_channels" and value != getattr(published, item.name):
            vae[item.name] = value
    return {
        "architectures": ["BagelForConditionalGeneration"],
        "model_type": "bagel",
        **_BUILT,
        "latent_patch_size": config.latent_patch_size,
        "max_latent_size": config.max_latent_size,
        "timestep_shift": config.timestep_shift,
        "vae_config": vae,
        "vit_max_num_patch_per_side": config.vit_max_patches_per_side,
    }


def _llm_document(config: TransformerConfig) -> dict[str, Any]:
    document: dict[str, Any] = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **_LLM_BUILT,
        **{key: getattr(config, name) for name, key in _LLM_SIZES.items()},
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.rms_norm_eps,
    }
    if config.head_dim * config.num_heads != config.hidden_size:
        document["head_dim"] = config.head_dim
    return document


def _vit_document(config: VisionConfig) -> dict[str, Any]:
    return {
        "model_type": "siglip_vision_model",
        "hidden_act": "gelu_pytorch_tanh",
        **{key: getattr(config, name) for name, key in _VIT_SIZES.items()},
        "num_hidden_layers": config.num_layers - 1 - VIT_SELECT_LAYER,
        "image_size": config.positions_per_side * config.patch_size,
        "num_channels": config.num_channels,
        "layer_norm_eps": config.layer_norm_eps,
    }


@dataclass(frozen=True, kw_only=True)
class _Section:
    """One JSON object with typed access; every error names the file and the key."""

    place: str
    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "_Section":
        missing = "; a checkpoint folder needs it"
        try:
            # Strictly: of a key given twice one would replace the other.
            document = strict_json.read_object(path, max_bytes=_MAX_JSON_BYTES, missing=missing)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        return cls(place=str(path), values=document)

    def section(self, key: str) -> "_Section":
        value = self._get(key, None)
        if not isinstance(value, dict):
            raise ValueError(f"{self.place}: {key} is {value!r}; expected an object")
        return _Section(place=f"{self.place}: {key}", values=value)

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{self.place}: {key} is {value!r}; expected an integer")
        if not 1 <= value <= _MAX_DIMENSION:
            raise ValueError(f"{self.place}: {key} is {value}; expected 1 to {_MAX_DIMENSION}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self.place}: {key} is {value!r}; expected a number")
        return float(value)

    def integers(self, key: str, default: Sequence[int]) -> tuple[int, ...]:
        value = self._get(key, default)
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"{self.place}: {key} is {value!r}; expected a list of integers")
        return tuple(value)

    def expect(self, **expected: object) -> None:
        for key, value in expected.items():
            found = self.values.get(key, value)
            if found != value:
                raise ValueError(
                    f"{self.place}: {key} is {found!r}, but only {value!r} is built here"
                )

    def expect_each(self, key: str, value: object) -> None:
        for found in self.values.get(key) or ():
            if found != value:
                raise ValueError(f"{self.place}: {key} has {found!r}, but only {value!r} is built")

    def only(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                raise ValueError(
                    f"{self.place}: {key} is not supported{nearest(key, known)}; what it asks for "
                    "would be passed over"
                )

    def _get(self, key: str, default: object) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise ValueError(f"{self.place}: {key} is missing")
        return value
