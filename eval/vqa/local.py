"""A vision-language model in this process: the whole distribution over the first token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedConfig
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from eval.geneval.mask2former import fingerprint
from eval.looks import look
from eval.vqa.question import VqaAnswer, VqaQuestion
from staged.devices import AUTO, choose_arithmetic
from staged.model.finite import require_finite
from staged.model.weights import load_pretrained
from staged.roles import Pixels


def processor_class(config: PreTrainedConfig) -> Any:
    """Return the class of a model's processor, without its part for videos.

    That part needs torchvision, which breaks a torch it was not built for, and no video is asked
    about.

    Args:
        config: Of the model.
    """
    kind: Any = PROCESSOR_MAPPING.get(type(config), None)
    if kind is None:
        return AutoProcessor
    attributes = [name for name in kind.get_attributes() if "video" not in name]
    # Under its own name, which is what a saved processor keeps.
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _: attributes)})


class LocalAnswerer:
    """Asks one image-text-to-text model of transformers.

    Args:
        model: The model.
        processor: Its processor, with a chat template.
        device: Where to run; the model is moved there.
    """

    def __init__(self, model: Any, processor: Any, *, device: str | torch.device = "cpu") -> None:
        """Prepare the model for inference."""
        # Before it moves: sums over weights need not cross to the device and back.
        digest = fingerprint(model.state_dict())
        kind = str(model.dtype).removeprefix("torch.")
        self.name = f"{model.config.model_type}, weights {digest}, {kind}, first token"
        self.model = model.eval().to(device)
        self.processor = processor
        tokenizer = processor.tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self._control = {str(token) for token in added if token.special}
        self._control |= set(tokenizer.all_special_tokens)

    @classmethod
    def load(
        cls, source: str | Path, *, device: str = AUTO, dtype: str = AUTO, begun: str | None = None
    ) -> LocalAnswerer:
        """Load a folder or a Hub id, and say where and in which precision.

        Args:
            source: Folder or Hub id.
            device: `auto`, or a torch device.
            dtype: `auto`, or of the weights. `auto` is what they are kept in, or float32 where the
                device multiplies that slowly.
            begun: The precision of earlier answers that these are added to; then `auto` is that.

        Raises:
            ValueError: no such device or model, its weights are not whole, or a package that its
                processor needs is missing.
        """
        chosen = choose_arithmetic(device, dtype, begun=begun)
        as_kept = dtype == AUTO and begun is None and chosen.dtype == torch.bfloat16
        try:
            model = load_pretrained(
                AutoModelForImageTextToText,
                source,
                what="image-text-to-text model",
                dtype="auto" if as_kept else chosen.dtype,
            )
            if as_kept and model.dtype == torch.float16 and chosen.device.type == "cpu":
                model = model.float()
            processor = processor_class(model.config).from_pretrained(str(source))
        except ImportError as error:
            raise ValueError(
                f"{source}: its processor needs a package that is not installed: "
                f"{str(error).strip()[:300]}"
            ) from None
        except OSError as error:
            raise ValueError(f"{source}: no processor there: {error}") from None
        if as_kept:
            chosen = choose_arithmetic(device, str(model.dtype).removeprefix("torch."))
        print(chosen.words)
        return cls(model, processor, device=chosen.device)

    def answer(
        self, questions: Sequence[VqaQuestion], keep: Callable[[int, VqaAnswer], None]
    ) -> None:
        """Answer one by one, so that no answer depends on its neighbours."""
        for index, question in enumerate(questions):
            # The template is text with such tokens; those of a prompt would be taken for its own.
            if spelled := sorted(token for token in self._control if token in question.text):
                detail = f"{spelled[0]} is a token by which this model's chats are framed"
                keep(index, VqaAnswer(probability=None, reason="control token", detail=detail))
                continue
            probability, why_not = look(question.image, partial(self._probability, question))
            keep(index, VqaAnswer(probability=probability, **why_not))

    def _probability(self, question: VqaQuestion, pixels: Pixels) -> float:
        probabilities = self.first_token(Image.fromarray(pixels), question.text)
        # Summed in double precision; a sum of rounded numbers may pass 1 in its last digit.
        accepted = probabilities[self.accepted_tokens(question.accepted)]
        return min(float(accepted.double().sum()), 1.0)

    def accepted_tokens(self, accepted: Sequence[str]) -> list[int]:
        """Return the distinct first tokens of the accepted answers.

        An answer of several tokens counts by its first one alone, as in the reference.
        """
        tokenizer = self.processor.tokenizer
        firsts = (tokenizer.encode(form, add_special_tokens=False)[:1] for form in accepted)
        return list(dict.fromkeys(token for first in firsts for token in first))

    @torch.inference_mode()
    def first_token(self, image: Image.Image, text: str) -> Tensor:
        """Return (vocabulary,) float32: the probability of each first token of the answer.

        Raises:
            NotFiniteError: the model gave no numbers.
        """
        content = [{"type": "image", "image": image}, {"type": "text", "text": text}]
        inputs = self.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self.model.device)
        # Logits as they are: what a generation config would do to them is no part of the metric.
        generated = self.model.generate(
            **inputs,
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        probabilities = cast(Tensor, generated.logits[0][0].float().softmax(-1).cpu())
        # A logit of -inf is a token that cannot be; NaN and inf make every probability NaN.
        require_finite(probabilities, "probabilities of the first token are")
        return probabilities
