"""Loading a diffusers pipeline part by part, so that every weight of every part is accounted for.

Diffusers itself draws at random what a part's file lacks, and says so in its log.
"""

import importlib.util
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers.configuration_utils import ConfigMixin
from torch import nn

from staged.backends.diffusers.settings import LoadSettings
from staged.devices import choose_arithmetic
from staged.first_line import first_line
from staged.model.weights import load_pretrained


def load_pipeline(settings: LoadSettings) -> Any:
    """Load any pipeline of diffusers, from safetensors.

    Raises:
        ValueError: diffusers has no such pipeline, there is no such device, a part's weights
            are not in safetensors, missing, unexpected, of another shape or not finite, or its
            configuration says what this diffusers does not know.
        OSError: the model cannot be had.
    """
    chosen = choose_arithmetic(settings.device, settings.dtype)  # before gigabytes are read
    cls = getattr(diffusers, settings.pipeline, None)
    if cls is None or not hasattr(cls, "from_pretrained"):
        raise ValueError(
            f"diffusers {diffusers.__version__} has no pipeline {settings.pipeline!r}; "
            "check its name, or install a newer diffusers"
        )
    folder = settings.model
    if not Path(folder).is_dir():
        folder = cls.download(folder, revision=settings.revision, use_safetensors=True)
    parts = {
        name: load_pretrained(kind, folder, what=name, subfolder=name, **_typed(kind, chosen.dtype))
        for name, kind in _networks(cls, folder).items()
    }
    loaded = cls.from_pretrained(folder, torch_dtype=chosen.dtype, **parts)
    for name, part in loaded.components.items():
        if isinstance(part, ConfigMixin):
            refuse_unknown_settings(f"{folder}: its part {name}", part)
    loaded.set_progress_bar_config(disable=True)
    adapt(loaded, settings, chosen.dtype)
    if settings.offload:
        loaded.enable_model_cpu_offload(device=chosen.device)
        return loaded
    return loaded.to(chosen.device)


def adapt(pipeline: Any, settings: LoadSettings, dtype: torch.dtype) -> None:
    """Put LoRAs on a pipeline, and keep its transformer's weights as the settings say.

    Args:
        pipeline: A loaded one.
        settings: Which, and how.
        dtype: In which it computes.

    Raises:
        ValueError: it takes none, PEFT is not installed, a LoRA fits no part of it, or it has no
            transformer.
        OSError: a LoRA cannot be had.
    """
    names = [f"lora{number}" for number in range(len(settings.loras))]
    size = _num_own_weights(pipeline)
    for name, lora in zip(names, settings.loras, strict=True):
        if not hasattr(pipeline, "load_lora_weights"):
            raise ValueError(f"loras: {type(pipeline).__name__} takes none; leave {lora.model} out")
        if importlib.util.find_spec("peft") is None:
            raise ValueError(f"loras: {lora.model} needs PEFT; pip install peft")
        try:
            # What is no safetensors may run code when it is read.
            pipeline.load_lora_weights(
                lora.model, weight_name=lora.file, adapter_name=name, use_safetensors=True
            )
        except (ValueError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"loras: {lora.model} does not fit {settings.model}: {first_line(error)}"
            ) from None
        # Of one that has no weight for any of its parts diffusers tells in its log alone.
        if not any(name in taken for taken in pipeline.get_list_adapters().values()):
            raise ValueError(f"loras: {lora.model} has no weights for any part of {settings.model}")
        # Of one for larger layers diffusers makes them larger, and breaks when it draws.
        if _num_own_weights(pipeline) != size:
            raise ValueError(
                f"loras: {lora.model} does not fit {settings.model}: it is for layers of another "
                "size, as of a pipeline with further inputs"
            )
    if names:
        pipeline.set_adapters(names, [lora.scale for lora in settings.loras])
    if settings.storage == "float8":
        transformer: Any = getattr(pipeline, "transformer", None)
        if not hasattr(transformer, "enable_layerwise_casting"):
            raise ValueError(
                f"storage is float8, and {type(pipeline).__name__} has no transformer to keep so; "
                "leave it out"
            )
        transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)


def _num_own_weights(pipeline: Any) -> int:
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    named = (weight for part in parts for weight in part.named_parameters())
    return sum(weight.numel() for name, weight in named if ".lora_" not in name)


def name_of(settings: LoadSettings, pipeline: Any) -> str:
    """Model, revision, LoRAs and pipeline."""
    revision = f"@{settings.revision}" if settings.revision else ""
    loras = "".join(f" + {lora.model}" for lora in settings.loras)
    return f"{settings.model}{revision}{loras} ({type(pipeline).__name__})"


def check_takes(pipeline: Any, names: Iterable[str], *, kind: str) -> None:
    """Make sure that a call of a pipeline has arguments of these names.

    Args:
        pipeline: A loaded one.
        names: What it is to be given.
        kind: What it is to be, for the message: `an editing`, `a text-to-image`.

    Raises:
        ValueError: it takes no such argument.
    """
    known = inspect.signature(pipeline.__call__).parameters
    for name in names:
        if name not in known:
            raise ValueError(
                f"{type(pipeline).__name__} takes no {name!r}; it takes {', '.join(known)}: choose "
                f"{kind} pipeline, or name its arguments in guidance_argument and arguments"
            )


def _networks(cls: Any, folder: str) -> dict[str, Any]:
    """Name the parts of a pipeline that have weights, and their classes.

    Raises:
        ValueError: a part is of a library whose loading is not checked here.
    """
    networks = {}
    for name, entry in cls.load_config(folder).items():
        # What begins with _ is about the file; a plain value is an argument, not a part.
        if name.startswith("_") or not isinstance(entry, list | tuple) or len(entry) != 2:
            continue
        library, kind_name = entry
        if library is None or kind_name is None:
            continue  # a part that this pipeline goes without
        home = {"diffusers": diffusers, "transformers": transformers}.get(library)
        home = home or getattr(diffusers.pipelines, str(library), None)
        if home is None:
            raise ValueError(
                f"{folder}: its part {name} is a {kind_name} of {library}, whose weights cannot be "
                "checked; only parts of diffusers and transformers are loaded"
            )
        kind = getattr(home, str(kind_name), None)
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            networks[name] = kind
    return networks


def refuse_unknown_settings(what: str, part: Any) -> None:
    """Require that a part's configuration holds only what its class reads.

    Diffusers ignores the rest, and something else runs than the configuration describes. What a
    scheduler's kin read may stand there: one file serves all of them.

    Raises:
        ValueError: Names what is not known.
    """
    kin = [type(part), *getattr(part, "compatibles", ())]
    known = {name for kind in kin for name in inspect.signature(kind.__init__).parameters}
    unknown = {
        name: value
        for name, value in part.config.items()
        # What begins with _ is about the file; null is what a key has that is not used.
        if name not in known and not name.startswith("_") and value is not None
    }
    if unknown:
        raise ValueError(
            f"{what} is configured with {unknown}, which {type(part).__name__} of diffusers "
            f"{diffusers.__version__} does not know and would ignore; correct its config.json, or "
            "install the diffusers that it was made for"
        )


def _typed(kind: Any, dtype: torch.dtype) -> dict[str, Any]:
    """The two libraries' names of one argument."""
    is_theirs = issubclass(kind, transformers.PreTrainedModel)
    return {"dtype": dtype} if is_theirs else {"torch_dtype": dtype}
