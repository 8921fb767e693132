"""A vision-language model of transformers that answers questions about pictures."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
from PIL import Image

from staged import images
from staged.devices import choose_arithmetic
from staged.first_line import first_line
from staged.strict_json import read_object
from train.self_reward.examples import conversation
from train.self_reward.settings import SamplingSettings, VlmSettings

ADAPTER: Final = "adapter_config.json"
_MAX_CONFIG_BYTES: Final = 2**24


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question.

    Attributes:
        question: In words.
        pictures: Encoded; they come before it.
    """

    question: str
    pictures: tuple[bytes, ...] = ()


class VlmPlayer(Protocol):
    """Whoever writes prompts and judges pictures."""

    @property
    def digest(self) -> str:
        """What decides its answers beside the question."""
        ...

    def sample(
        self, asked: Asked, number: int, sampling: SamplingSettings, *, seed: int
    ) -> list[str | None]:
        """Sample answers; None for one that was cut off."""
        ...


class LocalVlm:
    """A model on this process's device.

    Answers are a function of the question, the sampling and the seed alone: whatever is sampled in
    one call is sampled in one batch, and nothing else is.

    Args:
        source: Folder or Hub id of a model, or folder of a LoRA, which names its model.
        settings: Where it computes.
    """

    def __init__(self, source: str, settings: VlmSettings) -> None:
        """Load it.

        Raises:
            ValueError: There is no such model or device.
        """
        chosen = choose_arithmetic(settings.device, settings.dtype)
        self.device = chosen.device
        self.digest = digest_of(source)
        self.processor = open_processor(source)
        self.processor.tokenizer.padding_side = "left"
        self.model = open_model(source, chosen.dtype).to(self.device).eval()
        ends = self.model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends])
        # Sampling reads torch's own generator, of which a process has one.
        self._turn = threading.Lock()

    def sample(
        self, asked: Asked, number: int, sampling: SamplingSettings, *, seed: int
    ) -> list[str | None]:
        """Sample answers; None for one that was cut off."""
        likeliest = sampling.temperature == 0
        how: dict[str, Any] = {"do_sample": False}
        if not likeliest:
            how = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p,
                   "top_k": 0, "num_return_sequences": number}  # fmt: skip
        devices = [self.device] if self.device.type == "cuda" else []
        with self._turn, torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            texts = self._generate(asked, sampling.max_new_tokens, **how)
        return texts * number if likeliest else texts

    def likeliest(self, asked: Asked, *, num_beams: int, max_new_tokens: int) -> str | None:
        """Search for the likeliest answer; None if it was cut off."""
        [text] = self._generate(asked, max_new_tokens, do_sample=False, num_beams=num_beams)
        return text

    @torch.inference_mode()
    def _generate(self, asked: Asked, max_new_tokens: int, **how: Any) -> list[str | None]:
        shown = [Image.fromarray(images.decode(data)) for data in asked.pictures]
        text = self.processor.apply_chat_template(
            conversation(asked.question, len(shown)), add_generation_prompt=True, tokenize=False
        )
        inputs = self.processor(
            text=[text],
            images=[shown] if shown else None,
            return_tensors="pt",
            add_special_tokens=False,
        ).to(self.device)
        if shown:
            inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        written = self.model.generate(**inputs, max_new_tokens=max_new_tokens, **how)
        new = written[:, inputs["input_ids"].shape[1] :]
        ended = [any(int(token) in self._ends for token in row) for row in new]
        texts = self.processor.batch_decode(new, skip_special_tokens=True)
        return [said.strip() if whole else None for said, whole in zip(texts, ended, strict=True)]


def open_processor(source: str) -> Any:
    """Open what turns words and pictures into tokens; a LoRA's is its model's."""
    from transformers import AutoProcessor

    # PIL's image processors: torchvision from the package index does not fit every torch.
    with _found(source):
        return AutoProcessor.from_pretrained(base_of(source) or source, backend="pil")


def no_bars() -> None:
    """Leave out transformers' own bars: loading a model is told as everything else is."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def open_model(source: str, dtype: torch.dtype) -> Any:
    """Open a model, a LoRA merged into it."""
    from transformers import AutoModelForImageTextToText

    no_bars()
    base = base_of(source)
    model: Any
    with _found(base or source):
        model = AutoModelForImageTextToText.from_pretrained(
            base or source, dtype=dtype, use_safetensors=True
        )
    if base is not None:
        from peft import PeftModel

        adapted: Any = PeftModel.from_pretrained(model, source)
        model = adapted.merge_and_unload()
    return model


@contextmanager
def _found(source: str) -> Iterator[None]:
    """Say in a line which model is not there: what transformers says of it takes several."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{source}: no vision-language model of transformers there: {first_line(error)}"
        ) from None


def base_of(source: str) -> str | None:
    """The model that a LoRA's folder belongs to; None for a model of its own."""
    path = Path(source) / ADAPTER
    if not path.is_file():
        return None
    base = read_object(path, max_bytes=_MAX_CONFIG_BYTES).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ValueError(f"{path}: no base_model_name_or_path; it names the model of a LoRA")
    return base


def digest_of(source: str) -> str:
    """SHA-256 (hex) of a folder's weights, and of its base's; of its name for a Hub id."""
    folder = Path(source)
    if not folder.is_dir():
        return hashlib.sha256(source.encode()).hexdigest()
    content = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            content.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    base = base_of(source)
    if base is not None:
        content.update(digest_of(base).encode())
    return content.hexdigest()
