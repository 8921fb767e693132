"""The engine against plain loops that recompute everything (in company: test_batch_invariance.py).

The plain loops hold no cache: each token and each flow step lays the whole sequence out anew, as
one packed sample, and runs the training forward.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SIDE, engine, picture
from torch import Tensor

from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.engine.text_sampling import TextSampling
from staged.engine.velocity import Velocities
from staged.model.attention import PackedAttention
from staged.model.bagel import Hidden, Inputs
from staged.model.flows import FlowSettings, Guidance
from staged.model.layout import Layout, Segment, lay_out
from staged.sequence import clean_copies, noised_copy, text_block

ENGINE = engine(1)
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
STRONG = Guidance(text_scale=4.0, image_scale=1.5, interval=(0.3, 1.0))
FLOW = FlowSettings(num_flow_steps=5, timestep_shift=2.0, guidance=STRONG)


class Plain:
    """A sequence that is only remembered, and read from its beginning whenever it is needed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.segments: list[Segment] = []
        config = engine.model.config
        self.latents = torch.empty(0, config.latent_token_dim)
        self.patches = torch.empty(0, config.vision.patch_dim)

    def text(self, text: str) -> "Plain":
        self.segments.append(text_block(self.engine.tokenizer.encode(text)))
        return self

    def image(self, seed: int) -> "Plain":
        pixels = picture(seed)
        self.segments += clean_copies(self.engine.codec.grids(*pixels.shape[:2]))
        self.latents = torch.cat([self.latents, self.engine.codec.to_latents(pixels)])
        self.patches = torch.cat([self.patches, self.engine.codec.to_patches(pixels)])
        return self

    @torch.inference_mode()
    def forward(
        self, last: Segment, x_t: Tensor | None = None, t: float = 0.0
    ) -> tuple[Layout, Hidden]:
        layout = lay_out([[*self.segments, last]], self.engine.special)
        noised = self.latents[:0] if x_t is None else x_t
        times = torch.cat([torch.zeros(len(self.latents)), torch.full((len(noised),), t)])
        inputs = Inputs(torch.cat([self.latents, noised]), times, self.patches)
        return layout, self.engine.model(layout, inputs, PackedAttention(layout))

    @torch.inference_mode()
    def next_logits(self, ids: Sequence[int]) -> Tensor:
        """Logits after the start of a text block and some of its ids."""
        layout, hidden = self.forward(text_block(ids))
        return self.engine.model.logits(hidden.und)[len(layout.text_index) - 2]

    @torch.inference_mode()
    def velocity(self, x_t: Tensor, t: float) -> Tensor:
        stride = self.engine.model.config.pixels_per_latent_token
        grids = self.engine.codec.grids(SIDE, SIDE)
        assert grids.latent == (SIDE // stride, SIDE // stride)
        _, hidden = self.forward(noised_copy(grids), x_t, t)
        return self.engine.model.velocity(hidden.gen)[len(self.latents) :]


def plain_greedy(plain: Plain, max_tokens: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < max_tokens:
        token = int(plain.next_logits(ids).argmax())
        if token == plain.engine.special.text_end:
            break
        ids.append(token)
    return ids


def plain_draw(
    full: Plain, without_text: Plain, without_images: Plain, noise: Tensor, settings: FlowSettings
) -> Tensor:
    """Euler's method with both guidance terms, the global norm and forecasts, written out."""
    guidance, x_t = settings.guidance, noise
    steps, shift = settings.num_flow_steps, settings.timestep_shift
    times = [shift * u / (1 + (shift - 1) * u) for u in np.linspace(1, 0, steps + 1)]
    asked: dict[str, list[tuple[float, Tensor]]] = {}

    def velocity_of(name: str, plain: Plain, step: int) -> Tensor:
        follow, before = (settings.forecast or [None] * steps)[step], asked.setdefault(name, [])
        if follow is None:
            before.append((times[step], plain.velocity(x_t, times[step])))
            return before[-1][1]
        (first, then), (last, now) = (before * 2)[-2:]
        far = 0.0 if first == last else follow * (times[step] - last) / (last - first)
        return now + far * (now - then)

    for step, (now, then) in enumerate(itertools.pairwise(times)):
        velocity = velocity_of("full", full, step)
        if guidance.text_scale > 1 and guidance.interval[0] < now <= guidance.interval[1]:
            blind = velocity_of("blind", without_text, step)
            guided = blind + guidance.text_scale * (velocity - blind)
            if guidance.image_scale > 1 and len(full.latents):
                alone = velocity_of("alone", without_images, step)
                guided = alone + guidance.image_scale * (guided - alone)
            velocity = guided * min(1.0, float(velocity.norm() / guided.norm()))
        x_t = x_t - velocity * (now - then)
    return x_t


def read(engine: Engine, *parts: str | int) -> Context:
    """A context of texts (str) and pictures (seed)."""
    context = Context()
    for part in parts:
        if isinstance(part, str):
            engine.append_text([context], [part])
        else:
            engine.append_images([context], [picture(part)])
    return context


def test_images_of_many_sizes_are_encoded_together_to_what_each_is_alone() -> None:
    model = engine().codec
    sizes = [(16, 16), (8, 16), (16, 16), (24, 24), (16, 8)] * 40  # more than one call holds
    pictures = [picture(seed, *size) for seed, size in enumerate(sizes)]
    for together, pixels in zip(model.to_latents_each(pictures), pictures, strict=True):
        torch.testing.assert_close(together, model.to_latents(pixels), atol=1e-5, rtol=1e-5)
    assert model.to_latents_each([]) == []


def test_greedy_text_equals_a_plain_loop_that_recomputes_everything() -> None:
    parts: list[tuple[str | int, ...]] = [("a star",), ("a red circle", 3, "add a star"), (4, "a")]
    contexts = [read(ENGINE, *some) for some in parts]
    written = ENGINE.write(contexts, [TextSampling(max_tokens=n) for n in (12, 20, 6)])
    for some, limit, block in zip(parts, (12, 20, 6), written, strict=True):
        assert list(block.ids) == plain_greedy(plain_of(*some), limit)


def plain_of(*parts: str | int) -> Plain:
    plain = Plain(ENGINE)
    for part in parts:
        plain = plain.text(part) if isinstance(part, str) else plain.image(part)
    return plain


@pytest.mark.parametrize(
    "settings",
    [
        FLOW,
        replace(FLOW, guidance=replace(STRONG, image_scale=1.0)),
        replace(FLOW, guidance=Guidance(text_scale=1, image_scale=1)),
        replace(FLOW, forecast=(None, 0.5, None, 1.25, 0.75)),
        replace(FLOW, forecast=(None, None, 1.0, -0.5, None)),
    ],
    ids=["text and images", "text only", "no guidance", "from one step on", "two in a row"],
)
def test_drawing_equals_a_plain_loop_that_recomputes_everything(settings: FlowSettings) -> None:
    [drawing] = ENGINE.draw(
        [read(ENGINE, "a red circle", 3, "add a star")],
        [read(ENGINE, "a red circle", 3)],
        [read(ENGINE, "a red circle", "add a star")],
        sizes=[(SIDE, SIDE)],
        seeds=[7],
        settings=[settings],
    )
    expected = plain_draw(
        plain_of("a red circle", 3, "add a star"),
        plain_of("a red circle", 3),
        plain_of("a red circle", "add a star"),
        ENGINE.noise(7, len(drawing.latents)),
        settings,
    )
    torch.testing.assert_close(drawing.latents, expected, atol=5e-5, rtol=5e-5)


def test_the_network_is_asked_where_nothing_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    ask = Velocities.__call__

    def counting(self: Velocities, images: Any, x_t: Any, times: Any) -> list[Tensor]:
        asked.append(len(images))
        return ask(self, images, x_t, times)

    monkeypatch.setattr(Velocities, "__call__", counting)
    late = replace(STRONG, interval=(0.0, 0.6))
    context = read(ENGINE, "a star")

    def calls(forecast: tuple[float | None, ...], guidance: Guidance = STRONG) -> int:
        settings, seen = replace(FLOW, forecast=forecast, guidance=guidance), list[int]()
        asked.clear()
        ENGINE.draw(
            [context],
            [Context()],
            [context],
            sizes=[(SIDE, SIDE)],
            seeds=[0],
            settings=[settings],
            on_step=lambda _, step, estimate: seen.append(step),
        )
        assert seen == [1, 2, 3, 4, 5]
        return len(asked)

    assert calls(()) == 5
    assert calls((None, 0.5, None, 1.0, 1.0)) == FLOW.num_flow_steps - 3
    # Guidance begins within these steps, and the line of a branch is through two points.
    assert calls((None, 1.0, 1.0, 1.0, 1.0), late) == 3


def test_a_drawing_without_context_images_needs_no_third_branch() -> None:
    prompt, nothing = read(ENGINE, "a star"), Context()
    options = {"sizes": [(SIDE, SIDE)], "seeds": [1], "settings": [FLOW]}
    [one] = ENGINE.draw([prompt], [nothing], [prompt], **options)
    [other] = ENGINE.draw([prompt], [nothing], [nothing], **options)
    assert torch.equal(one.latents, other.latents)


def test_writing_drawing_and_forking_leave_the_context_as_it_was() -> None:
    context = read(ENGINE, "a star", 1)
    before = context.keys
    fork = context.fork()
    ENGINE.append_text([fork], ["more"])
    ENGINE.write([context], [TextSampling(max_tokens=9)])
    ENGINE.draw([context], [Context()], [context], sizes=[(8, 8)], seeds=[0], settings=[FLOW])
    assert context.num_tokens == len(before[0]) < fork.num_tokens
    assert all(torch.equal(a, b) for a, b in zip(before, context.keys, strict=True))


def test_each_flow_step_reports_an_estimate_and_the_last_is_the_image() -> None:
    seen: list[tuple[int, int, Tensor]] = []
    context = read(ENGINE, "a star")
    [drawing] = ENGINE.draw(
        [context],
        [Context()],
        [context],
        sizes=[(SIDE, SIDE)],
        seeds=[0],
        settings=[FLOW],
        on_step=lambda *told: seen.append(told),
    )
    assert [told[:2] for told in seen] == [(0, step) for step in range(1, 6)]
    torch.testing.assert_close(seen[-1][2], drawing.latents, **TOLERANCE)
    assert not torch.allclose(seen[0][2], drawing.latents, atol=0.1)


def test_a_block_that_does_not_end_is_cut_off_and_says_so() -> None:
    context = read(ENGINE, "a star")
    [block] = ENGINE.write([context], [TextSampling(max_tokens=1)])
    assert len(block.ids) <= 1
    assert block.finished == (len(plain_greedy(plain_of("a star"), 2)) < 2)


def test_a_size_that_is_no_multiple_of_a_token_is_refused() -> None:
    with pytest.raises(ValueError, match="15 x 16 pixels: give sides from 4 to"):
        ENGINE.draw(
            [Context()], [Context()], [Context()], sizes=[(16, 15)], seeds=[0], settings=[FLOW]
        )


def test_towers_that_have_nothing_to_look_at_or_draw_run_in_training_alone() -> None:
    """Sharded training waits for their parameters in every step; text only takes longer by them."""
    layout = lay_out([[text_block([5, 6, 7])]], ENGINE.special)
    model, config = ENGINE.model, ENGINE.model.config
    nothing = Inputs(
        latents=torch.zeros(0, config.latent_token_dim),
        timesteps=torch.zeros(0),
        patches=torch.zeros(0, config.vision.patch_dim),
    )
    ran: list[str] = []
    towers = {"looks": model.connector, "draws": model.time_embed}
    hooks = [
        tower.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, tower in towers.items()
    ]
    try:
        with torch.no_grad():  # as validation does
            validated = model.embed(layout, nothing)
        assert ran == ["looks", "draws"]
        with torch.inference_mode():
            written = model.embed(layout, nothing)
        assert ran == ["looks", "draws"]
    finally:
        for hook in hooks:
            hook.remove()
    assert torch.equal(written, validated)
