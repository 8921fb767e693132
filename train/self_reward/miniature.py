"""The miniature world as a school: a tiny vision-language model, and what it is taught first.

The image model understands detailed prompts alone ("a photo of a red circle and a yellow star"), so
a riddle ("something red and something the colour of a lemon") has room to be improved; a prompt
that leaves nothing open is to stay as it is, and what a fact stands for to be said. The teacher
knows which rewrites fit, and errs on purpose in a share of them: what is imitated is then worse
than what can be learned from pictures. Its judgements name what the detector sees in each picture,
then score it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from staged import images
from staged.jobs.files import write_whole
from staged.shapes.language.prompts import describe, write_prompt
from staged.shapes.language.vague import RIDDLE_KINDS, sample_ideas
from staged.shapes.language.vocabulary import vocabulary
from staged.shapes.language.wishes import Vision, read_vision
from staged.shapes.miniature import open_named
from staged.shapes.sight.detect import ShapeDetection, detect
from staged.shapes.sight.verdict import MIN_SCORE
from staged.shapes.sight.wishes import fulfilled
from staged.shapes.tasks import MAX_COUNT, TASKS, sample_prompts, sample_scene
from staged.shapes.world.render import render
from staged.shapes.world.scene import CANVAS_PX, COLORS, KINDS
from staged.shapes.world.spec import Spec, Thing
from train.self_reward.asking import (
    CRITERIA,
    MAX_SCORE,
    WORDINGS,
    TwoScores,
    write_assessment,
    write_judgement,
)
from train.self_reward.examples import Example, keep_picture, write_examples
from train.self_reward.eyes import calm, siglip_config, siglip_weights
from train.self_reward.preferences import PicturePair, write_pairs
from train.self_reward.settings import RUBRICS, Rubric

WORDING: Final = WORDINGS["terse"]
_MISTAKEN: Final = 0.4
"""Share of the rewrites that are taught wrong."""
_ASSESSED: Final = 0.15
"""Share of the judgements that are assessed."""
_REPLAYED: Final = 6
"""Lessons with pictures to a rewrite beside them, so that rewriting is not forgotten."""
_OPEN_KINDS: Final = 4
"""Kinds to choose from where an idea leaves them open, other ones each time: every way to choose
three of all twelve takes long to list."""
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
    num_pictured: int,
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
        num_lessons: Rewrites of each idea.
        num_pictured: Judgements of each idea, each of two pictures of its own.
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
    for number, kind in enumerate(RIDDLE_KINDS):
        wanted = num_held_out + num_prompts + num_ideas
        ideas = sample_ideas(kind, wanted, np.random.default_rng((seed, 1, number)))
        held_out += ideas[:num_held_out]
        prompts += ideas[num_held_out : num_held_out + num_prompts]
        taught += ideas[num_held_out + num_prompts :]
    suite: list[str] = []
    if num_suite:
        drawn = np.random.default_rng((seed, 2))
        for task in TASKS:
            asked = sample_prompts(num_suite, drawn, split="train", tasks=(task,))
            suite += [prompt.text for prompt in asked]
    rng.shuffle(prompts)
    if not taught or not prompts or not held_out:
        raise ValueError(
            f"{len(taught)} ideas to teach, {len(prompts)} to learn from, {len(held_out)} held "
            "out; ask for fewer of the last two: there are some dozens of some kinds"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_vlm(folder / "vlm", seed=seed)
    rewrites = [rewrite_lesson(idea, rng) for idea in (*taught, *suite) * num_lessons]
    pictured = [
        one
        for idea in taught * num_pictured
        for one in picture_lessons(idea, folder / "pictures", rng)
    ]
    rng.shuffle(rewrites)
    write_examples(folder / "rewrites.jsonl", rewrites)
    write_examples(folder / "sft.jsonl", [*pictured, *rewrites[: len(pictured) // _REPLAYED]])
    judging = np.random.default_rng((seed, 3))
    pairs = [pair for idea in held_out if (pair := pair_of(idea, folder / "pictures", judging))]
    write_pairs(folder / "pairs.jsonl", pairs)
    for name, lines in (("prompts.txt", prompts), ("held_out.txt", held_out)):
        write_whole(folder / name, "".join(f"{line}\n" for line in lines).encode())
    return {
        "rewrites": len(rewrites),
        "lessons with pictures": len(pictured),
        "prompts": len(prompts),
        "held out": len(held_out),
        "pairs": len(pairs),
    }


def rewrite_lesson(idea: str, rng: np.random.Generator) -> Example:
    """Return a rewrite of an idea, wrong in four of ten.

    Args:
        idea: Of the miniature world.
        rng: Source of every choice.
    """
    right = _meant(read_vision(idea), rng)
    told = _mistaken(right, rng) if rng.random() < _MISTAKEN else right
    return Example(question=WORDING.rewrite(idea), answer=write_prompt(told))


def picture_lessons(idea: str, pictures: Path, rng: np.random.Generator) -> Iterator[Example]:
    """Yield a judgement of two pictures under one rubric, and of some judgements an assessment.

    Args:
        idea: Of the miniature world.
        pictures: Folder for what is judged.
        rng: Source of every choice.
    """
    vision = read_vision(idea)
    drawn = [render(sample_scene(_tried(vision, rng), rng)) for _ in range(2)]
    paths = tuple(keep_picture(pictures, images.encode_png(pixels)) for pixels in drawn)
    rubric = RUBRICS[rng.integers(len(RUBRICS))]
    asked, answer = WORDING.judge(rubric, idea), write_judgement(teacher(vision, drawn, rubric))
    yield Example(question=asked, answer=answer, images=paths)
    if rng.random() < _ASSESSED:
        score = 5
        if rng.random() < 0.5:
            nothing = TwoScores(scores=(0, 0), reasons=("no photo", "no photo"))
            answer, score = write_judgement(nothing), 1
        question = WORDING.assess(asked, answer)
        yield Example(question=question, answer=write_assessment(score), images=paths)


def _meant(vision: Vision, rng: np.random.Generator) -> Spec:
    """One of the pictures that an idea allows."""
    kinds = [KINDS[place] for place in rng.choice(len(KINDS), _OPEN_KINDS, replace=False)]
    specs = list(vision.candidates(kinds))
    return specs[rng.integers(len(specs))]


def _tried(vision: Vision, rng: np.random.Generator) -> Spec:
    """What an image model may draw of an idea: right, or with things wrong, missing or too many."""
    spec = _meant(vision, rng)
    luck = rng.random()
    if luck < 0.35:
        return spec
    spec = _mistaken(spec, rng)
    if luck < 0.55:
        return spec
    if luck < 0.7:
        return _mistaken(spec, rng)
    if luck < 0.85:
        other = Thing(kind=KINDS[rng.integers(len(KINDS))], color=COLORS[rng.integers(len(COLORS))])
        things = (*spec.things, other)
    else:
        kept = replace(spec.things[0], number=1 + int(rng.integers(MAX_COUNT - 1)))
        things = (kept, *spec.things[1:][: rng.integers(2)])
    return Spec(things=things)


def pair_of(idea: str, pictures: Path, rng: np.random.Generator) -> PicturePair | None:
    """Draw an idea right and with a mistake; None where the detector sees no difference.

    Args:
        idea: Of the miniature world.
        pictures: Folder for both.
        rng: Source of every choice.
    """
    vision = read_vision(idea)
    right = _meant(vision, rng)
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
        detections = detect(pixels)
        found = fulfilled(vision, detections)
        aligned = round(MAX_SCORE * found.check.share)
        clean = max(0, MAX_SCORE - 2 * len(found.check.surplus))
        scored = {
            "alignment": aligned,
            "aesthetic": clean,
            "preference": (aligned + clean) // 2,
        }
        scores.append(scored[rubric])
        reasons.append(_seen(detections))
    return TwoScores(scores=(scores[0], scores[1]), reasons=(reasons[0], reasons[1]))


def _seen(detections: Sequence[ShapeDetection]) -> str:
    """What there is from left to right, things that look alike together."""
    shapes = sorted((one for one in detections if one.score >= MIN_SCORE), key=lambda d: d.box[0])
    counted = Counter(Thing(kind=one.kind, color=one.color) for one in shapes)
    things = tuple(replace(thing, number=number) for thing, number in counted.items())
    return describe(Spec(things=things))


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
    """Write a fresh model: a LLaVA of a million parameters, a token a word.

    It looks through the eyes of the shipped base, as a model of full size has eyes that were
    trained before.

    Args:
        folder: Of the model and its processor, as transformers keeps them.
        seed: Of all other weights.
        hidden_size: Of its decoder.
        num_layers: Of its decoder.
    """
    import torch
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    eyes = open_named("base", seed=seed, device="cpu", dtype=torch.float32).model.vision
    processor = _processor(eyes.config.patch_size)
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
    config = LlavaConfig(
        vision_config=siglip_config(eyes.config),
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=(CANVAS_PX // eyes.config.patch_size) ** 2,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = LlavaForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(siglip_weights(eyes))
    rng = np.random.default_rng(seed)
    scenes = [render(sample_scene(one.spec, rng)) for one in sample_prompts(4, rng)]
    pixels = torch.from_numpy(np.stack(scenes)).movedim(-1, 1).float() / 127.5 - 1
    calm(model.model.vision_tower, pixels)
    model.generation_config.pad_token_id = pad
    model.generation_config.eos_token_id = end
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _processor(patch_size: int) -> Any:
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
        patch_size=patch_size,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=_TEMPLATE,
    )


def _words() -> list[str]:
    """Everything that is asked and answered in the miniature world, a word each."""
    text = " ".join([*vocabulary(), _EXTRA_WORDS, *CRITERIA])
    words = [*sorted(set(re.findall(r"[a-z]+", text.lower()))), *"0123456789"]
    return [*words, *(f" {word}" for word in words), *".,:;?!'-"]
