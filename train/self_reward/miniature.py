"""The miniature world as a school: a tiny vision-language model, and what it is taught first.

The image model understands detailed prompts alone ("a photo of a red circle left of a star"), so an
idea that leaves things open ("something red next to a star") has room to be improved; a prompt that
leaves nothing open is to stay as it is, and what a fact stands for to be said. The teacher
knows which rewrites fit, and errs on purpose in a share of them: what is imitated is then worse
than what can be learned from pictures. Its judgements are the detector's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from staged import images
from staged.jobs.files import write_whole
from staged.shapes.language.prompts import write_prompt
from staged.shapes.language.vague import IDEA_KINDS, sample_ideas
from staged.shapes.language.vocabulary import vocabulary
from staged.shapes.language.wishes import Vision, read_vision
from staged.shapes.sight.detect import detect
from staged.shapes.sight.wishes import fulfilled
from staged.shapes.tasks import TASKS, sample_prompts, sample_scene
from staged.shapes.world.render import render
from staged.shapes.world.scene import CANVAS_PX, COLORS, KINDS
from staged.shapes.world.spec import Spec
from train.self_reward.asking import (
    CRITERIA,
    MAX_SCORE,
    WORDINGS,
    TwoScores,
    write_assessment,
    write_judgement,
)
from train.self_reward.examples import Example, keep_picture, write_examples
from train.self_reward.preferences import PicturePair, write_pairs
from train.self_reward.settings import RUBRICS, Rubric

WORDING: Final = WORDINGS["terse"]
_MISTAKEN: Final = 0.4
"""Share of the rewrites that are taught wrong."""
_PATCH_PX: Final = 6
_EXTRA_WORDS: Final = "rewrite beauty liking fit assess first second score as asked thing things"
_TEMPLATE: Final = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<user>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<answer>{% else %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<end>"
    "{% endif %}{% endfor %}"
)


def write_world(
    folder: Path,
    *,
    num_ideas: int,
    num_lessons: int,
    num_prompts: int,
    num_held_out: int,
    num_suite: int,
    seed: int,
) -> dict[str, int]:
    """Write the model, what it is taught, the prompts to learn from, and others to test it with.

    Args:
        folder: Gets `vlm/`, `sft.jsonl` and, of it, `rewrites.jsonl`, `pictures/`, `prompts.txt`,
            `pairs.jsonl` and, last, `held_out.txt`.
        num_ideas: Of each kind, to teach with.
        num_lessons: Of each idea; a lesson is a rewrite, three judgements and two assessments.
        num_prompts: Of each kind, to learn from; no idea is in two files.
        num_held_out: Of each kind, to test with; pairs of pictures are drawn for them.
        num_suite: Prompts of each task of `staged eval miniature`, of combinations that training
            shows, to teach with.
        seed: Of everything.

    Returns:
        How many of each there are.
    """
    rng = np.random.default_rng((seed, 0))
    taught: list[str] = []
    prompts: list[str] = []
    held_out: list[str] = []
    for number, kind in enumerate(IDEA_KINDS):
        wanted = num_held_out + num_prompts + num_ideas
        ideas = sample_ideas(kind, wanted, np.random.default_rng((seed, 1, number)))
        held_out += ideas[:num_held_out]
        prompts += ideas[num_held_out : num_held_out + num_prompts]
        taught += ideas[num_held_out + num_prompts :]
    if num_suite:
        suite = np.random.default_rng((seed, 2))
        for task in TASKS:
            asked = sample_prompts(num_suite, suite, split="train", tasks=(task,))
            taught += [prompt.text for prompt in asked]
    rng.shuffle(prompts)
    rng.shuffle(taught)
    if not taught or not prompts or not held_out:
        raise ValueError(
            f"{len(taught)} ideas to teach, {len(prompts)} to learn from, {len(held_out)} held "
            "out; ask for fewer of the last two: there are some dozens of some kinds"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_vlm(folder / "vlm", seed=seed)
    examples = [
        one for idea in taught * num_lessons for one in lessons(idea, folder / "pictures", rng)
    ]
    write_examples(folder / "rewrites.jsonl", (one for one in examples if not one.images))
    write_examples(folder / "sft.jsonl", examples)
    judging = np.random.default_rng((seed, 3))
    pairs = [pair for idea in held_out if (pair := pair_of(idea, folder / "pictures", judging))]
    write_pairs(folder / "pairs.jsonl", pairs)
    for name, lines in (("prompts.txt", prompts), ("held_out.txt", held_out)):
        write_whole(folder / name, "".join(f"{line}\n" for line in lines).encode())
    return {
        "examples": len(examples),
        "prompts": len(prompts),
        "held out": len(held_out),
        "pairs": len(pairs),
    }


def lessons(idea: str, pictures: Path, rng: np.random.Generator) -> Iterator[Example]:
    """Yield what an idea teaches: a rewrite, a judgement under each rubric, two assessments.

    Args:
        idea: Of the miniature world.
        pictures: Folder for what is judged.
        rng: Source of every choice.
    """
    vision = read_vision(idea)
    specs = list(vision.candidates())
    right = specs[rng.integers(len(specs))]
    told = _mistaken(right, rng) if rng.random() < _MISTAKEN else right
    yield Example(question=WORDING.rewrite(idea), answer=write_prompt(told))
    shown = [right, _mistaken(right, rng)]
    if rng.random() < 0.5:
        shown.reverse()
    drawn = [render(sample_scene(spec, rng)) for spec in shown]
    paths = tuple(keep_picture(pictures, images.encode_png(pixels)) for pixels in drawn)
    answers = {}
    for rubric in RUBRICS:
        answers[rubric] = write_judgement(teacher(vision, drawn, rubric))
        yield Example(question=WORDING.judge(rubric, idea), answer=answers[rubric], images=paths)
    other = write_judgement(TwoScores(scores=(0, 0), reasons=("no photo", "no photo")))
    for answer, score in ((answers["preference"], 5), (other, 1)):
        question = WORDING.assess(WORDING.judge("preference", idea), answer)
        yield Example(question=question, answer=write_assessment(score), images=paths)


def pair_of(idea: str, pictures: Path, rng: np.random.Generator) -> PicturePair | None:
    """Draw an idea right and with a mistake; None where the detector sees no difference.

    Args:
        idea: Of the miniature world.
        pictures: Folder for both.
        rng: Source of every choice.
    """
    vision = read_vision(idea)
    specs = list(vision.candidates())
    right = specs[rng.integers(len(specs))]
    shown = [right, _mistaken(right, rng)]
    if rng.random() < 0.5:
        shown.reverse()
    drawn = [render(sample_scene(spec, rng)) for spec in shown]
    correct = [fulfilled(vision, detect(pixels)).correct for pixels in drawn]
    if correct[0] == correct[1]:
        return None
    first, second = (keep_picture(pictures, images.encode_png(pixels)) for pixels in drawn)
    return PicturePair(prompt=idea, images=(first, second), preferred=correct.index(True))


def teacher(vision: Vision, drawn: Sequence[Any], rubric: Rubric) -> TwoScores:
    """Judge two pictures as the detector sees them.

    Args:
        vision: What is wanted.
        drawn: Both, (h, w, 3) uint8 RGB.
        rubric: Alignment counts what is there of what is wanted, beauty what is there too much,
            and people like both.
    """
    scores, reasons = [], []
    for pixels in drawn:
        found = fulfilled(vision, detect(pixels))
        aligned = round(MAX_SCORE * found.check.share)
        clean = max(0, MAX_SCORE - 2 * len(found.check.surplus))
        scored = {
            "alignment": aligned,
            "aesthetic": clean,
            "preference": (aligned + clean) // 2,
        }
        scores.append(scored[rubric])
        reasons.append(found.reasons[0] if found.reasons else "as asked")
    return TwoScores(scores=(scores[0], scores[1]), reasons=(reasons[0], reasons[1]))


def _mistaken(spec: Spec, rng: np.random.Generator) -> Spec:
    """The same with one thing of another colour or kind, without relations that it was in."""
    place = int(rng.integers(len(spec.things)))
    thing = spec.things[place]
    if rng.random() < 0.5 or thing.color is None:
        others = [kind for kind in KINDS if kind not in {one.kind for one in spec.things}]
        thing = replace(thing, kind=others[rng.integers(len(others))], color=None)
    else:
        colors = [color for color in COLORS if color != thing.color]
        thing = replace(thing, color=colors[rng.integers(len(colors))])
    things = (*spec.things[:place], thing, *spec.things[place + 1 :])
    return Spec(things=things, relations=spec.relations)


def write_vlm(folder: Path, *, seed: int, hidden_size: int = 128, num_layers: int = 3) -> None:
    """Write a fresh model: a LLaVA of less than a million parameters, a token a word.

    Args:
        folder: Of the model and its processor, as transformers keeps them.
        seed: Of its weights.
        hidden_size: Of its decoder.
        num_layers: Of its decoder, and of its eyes.
    """
    import torch
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    processor = _processor()
    tokenizer = processor.tokenizer
    pad, begin, end = (
        tokenizer.convert_tokens_to_ids(token) for token in ("<pad>", "<user>", "<end>")
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=5 * hidden_size // 2,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        pad_token_id=pad,
        bos_token_id=begin,
        eos_token_id=end,
        tie_word_embeddings=True,
    )
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        image_size=CANVAS_PX,
        patch_size=_PATCH_PX,
        projection_dim=96,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(CANVAS_PX // _PATCH_PX) ** 2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlavaForConditionalGeneration(config)
    model.generation_config.pad_token_id = pad
    model.generation_config.eos_token_id = end
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _processor() -> Any:
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )
    from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<user>", "<answer>", "<end>", "<image>"]
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate([*special, *_words()])}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    # A space belongs to the word behind it, so that what is read is what was written.
    parts = Regex(" ?[a-z]+| ?[0-9]|[^a-z0-9 ]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(parts, "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token) for token in special])
    fast: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<user>",
        eos_token="<end>",
        extra_special_tokens={"image_token": "<image>"},
    )
    pictures: Any = CLIPImageProcessorPil(
        size={"height": CANVAS_PX, "width": CANVAS_PX},
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=fast,
        patch_size=_PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )


def _words() -> list[str]:
    """Everything that is asked and answered in the miniature world, a word each."""
    text = " ".join([*vocabulary(), _EXTRA_WORDS, *CRITERIA])
    words = [*sorted(set(re.findall(r"[a-z]+", text.lower()))), *"0123456789"]
    return [*words, *(f" {word}" for word in words), *".,:;?!'-"]
