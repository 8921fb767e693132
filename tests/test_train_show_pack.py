"""A pack shown token by token is the pack that training takes."""

import json
import re
from pathlib import Path

import pytest
import torch
from training import World, build

from staged.cli import main as staged
from staged.model.open import open_codec
from staged.report.packed import PackedGrid, PackedSample, PackedToken
from train.job import Trainer
from train.packing import Pack
from train.settings import ConditionDropout
from train.show_pack import packed_samples, show_pack


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def shown_pack(
    world: World, out: Path, number: int, **changes: object
) -> tuple[Pack, list[PackedSample]]:
    """The pack that training takes, and what is shown of it."""
    settings = world.settings(out, num_workers=0, pack_tokens=700, **changes)
    trainer = Trainer(settings)
    packs = trainer.packs.from_step(0)
    pack = [next(packs) for _ in range(number + 1)][-1]
    names = [trainer.examples.name(sample) for sample, _ in trainer.plan.pack(number)]
    return pack, list(packed_samples(pack, trainer.tokenizer, names))


@pytest.mark.parametrize("number", [0, 1, 3])
def test_every_token_is_what_the_layout_says(world: World, tmp_path: Path, number: int) -> None:
    pack, samples = shown_pack(world, tmp_path, number)
    layout = pack.layout
    tokenizer = open_codec(str(world.init))[1]
    ids = dict(zip(layout.text_index.tolist(), layout.token_ids.tolist(), strict=True))
    labels = dict(zip(layout.ce_index.tolist(), layout.labels.tolist(), strict=True))
    found: list[int] = []
    supervised: list[int] = []
    for segment in (segment for sample in samples for segment in sample.segments):
        for token in segment.tokens:
            count = token.count if isinstance(token, PackedGrid) else 1
            found += range(token.place, token.place + count)
            assert layout.position_ids[token.place] == token.position
            if isinstance(token, PackedGrid):
                if token.supervised:
                    supervised += range(token.place, token.place + count)
                continue
            assert tokenizer.decode([ids[token.place]]) in (token.text, "")
            assert (token.label is not None) == (token.place in labels)
            if token.label is not None:
                assert tokenizer.decode([labels[token.place]]) in (token.label, "")
    assert found == list(range(layout.num_tokens))
    assert supervised == layout.latent_index[layout.velocity_rows].tolist()


def test_weights_and_times_are_those_of_the_pack(world: World, tmp_path: Path) -> None:
    pack, samples = shown_pack(world, tmp_path, 0, noised_copies=2)
    tokens = [t for sample in samples for segment in sample.segments for t in segment.tokens]
    weights = [t.weight for t in tokens if isinstance(t, PackedToken) and t.label is not None]
    assert weights == pytest.approx(pack.layout.ce_weights.tolist())
    times = [t.time for t in tokens if isinstance(t, PackedGrid) and t.time is not None]
    first = torch.tensor([0, *(r * c for r, c in pack.layout.latent_grids)]).cumsum(0)[:-1]
    assert times == pytest.approx(pack.inputs.timesteps[first].tolist())
    assert len(set(times)) > 2


def test_who_sees_whom_is_the_mask(world: World, tmp_path: Path) -> None:
    """Token by token, against the mask that attention is given."""
    pack, samples = shown_pack(world, tmp_path, 0)
    for number, sample in enumerate(samples):
        mask = pack.layout.mask(number)
        start = sum(pack.layout.sample_lens[:number])
        ids = pack.layout.segment_ids[start : start + len(mask)]
        for segment in sample.segments:
            rows = mask[ids == segment.number]
            own = rows[:, ids == segment.number]
            assert torch.equal(own, torch.ones_like(own).tril() if segment.causal else own | True)
            for other in sample.segments:
                if other is not segment:
                    seen = rows[:, ids == other.number]
                    assert bool(seen.all()) == bool(seen.any()) == (other.number in segment.sees)


def test_what_this_pack_goes_without_is_said(world: World, tmp_path: Path) -> None:
    everything = ConditionDropout(text=1, image=1)
    _, samples = shown_pack(world, tmp_path, 0, dropout=everything)
    assert any(sample.dropped and "Dropped this time" in sample.intro for sample in samples)


def test_the_command_shows_what_training_takes_and_leaves_nothing(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times and dropout too; before anything was encoded, and after."""
    out, page = tmp_path / "run", tmp_path / "page.html"
    argv = [
        "train", "configs/shapes/demo_train.yaml", f"init={world.init}", f"out={out}",
        f"data=[{{path: {world.data}}}]", "pack_tokens=700", "num_steps=4", "dtype=float32",
        "device=cpu", "--show-pack", "1",
    ]  # fmt: skip
    assert staged(argv) == 0
    before = capsys.readouterr().out
    assert not out.exists()
    settings = world.settings(out, pack_tokens=700, num_steps=4, ce_weight=1.0)
    Trainer(settings)  # encodes
    capsys.readouterr()
    assert staged([*argv, "--page", str(page), "--json"]) == 0
    after = capsys.readouterr()
    figures = json.loads(after.out)
    assert before.strip() in after.err
    assert figures["samples"] == len(re.findall(r"^/.* \(\w+\)$", before, re.MULTILINE))
    assert figures["labels"] == len(re.findall(r" 0\.\d{4}$| 1\.0000$", before, re.MULTILINE))
    html = page.read_text()
    assert html.count("<section") == figures["samples"] + before.count("\nfiller")
    assert "<svg" in html and "Token by token" in html
    assert "<|vision_start|>" not in html and "&lt;|vision_start|&gt;" in html


def test_a_pack_that_the_run_does_not_have_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="packs 0 to 15; 16 is none"):
        show_pack(world.settings(tmp_path, packs_per_step=2), 16)


def test_a_page_is_of_a_pack(capsys: pytest.CaptureFixture[str]) -> None:
    assert staged(["train", "configs/shapes/demo_train.yaml", "--page", "x.html"]) == 2
    assert "--page is of --show-pack" in capsys.readouterr().err
