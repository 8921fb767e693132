"""NaN and infinities end as failures with a reason, never as pictures, texts or scores.

One word's embedding is poisoned, so that of the samples of a batch one alone goes wrong.
"""

from dataclasses import dataclass
from pathlib import Path

import clips
import numpy as np
import pytest
import torch
import vlm
from tiny import SIDE, engine

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.backends.diffusers.settings import DiffusersSettings
from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.engine.sampling import Drawing, TextBlock, sample
from staged.engine.text_sampling import TextSampling
from staged.generate.role_choice import RoleChoice
from staged.loops.events import Event, Failed, Previewed, Retried, Stopped
from staged.loops.policy import Policy
from staged.loops.staged import StagedLoop
from staged.model.finite import NotFiniteError, all_finite, require_finite
from staged.model.flow import guide
from staged.model.flows import Flows, FlowSettings, Guidance
from staged.model.images import to_pixels
from staged.ranges import check_finite, check_range
from staged.settings import load
from staged.trajectory import Trajectory

POISON, SOUND = "a star", "a red circle"
NAN, INF = float("nan"), float("inf")


def sound() -> tuple[Engine, int]:
    """An engine, and the token of `star`, which it never writes itself."""
    made = engine(1)
    [token] = set(made.tokenizer.encode(" star")) - set(made.tokenizer.encode(SOUND))
    with torch.no_grad():
        made.model.lm_head.weight[token] = 0
    return made, token


def poisoned() -> Engine:
    """The same engine, but that whatever says `star`, and nothing else, turns into NaN."""
    made, token = sound()
    with torch.no_grad():
        made.model.embed_tokens.weight[token] = NAN
    return made


def contexts(made: Engine) -> list[Context]:
    two = [Context(), Context()]
    made.append_text(two, [POISON, SOUND])
    return two


def draw(made: Engine) -> list[Drawing]:
    nothing = [Context(), Context()]
    return made.draw(
        contexts(made),
        nothing,
        nothing,
        sizes=[(SIDE, SIDE)] * 2,
        seeds=[1, 2],
        settings=[FlowSettings(num_flow_steps=2)] * 2,
    )


def write(made: Engine, temperature: float) -> list[TextBlock]:
    sampling = TextSampling(max_tokens=6, temperature=temperature, seed=3)
    return made.write(contexts(made), [sampling] * 2)


def test_a_drawing_of_nan_has_no_pixels_and_its_neighbour_is_as_without_it() -> None:
    """It was a black picture."""
    failed, drawn = draw(poisoned())
    with pytest.raises(NotFiniteError, match="latents are not finite"):
        _ = failed.pixels
    expected = draw(engine(1))[1]
    assert torch.equal(drawn.latents, expected.latents)
    assert (drawn.pixels == expected.pixels).all()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_pixels_that_only_the_decoder_spoils_are_found(bad: float) -> None:
    """An infinity became white in the clamp."""
    made = engine(1)
    with torch.no_grad():
        made.codec.autoencoder.decoder.conv_out.bias[0] = bad  # type: ignore[union-attr,index]
    for drawing in draw(made):
        assert torch.isfinite(drawing.latents).all()
        with pytest.raises(NotFiniteError, match="pixels are not finite"):
            _ = drawing.pixels


def test_a_norm_that_overflows_is_no_velocity_of_zero() -> None:
    """The factor was 0, the velocity 0, and the picture its noise."""
    large = torch.full((1, 4, 4), 1e30)
    guided = guide(large, torch.zeros_like(large), None, Guidance(text_scale=4.0))
    assert guided.isnan().all()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_text_of_nan_breaks_off_and_its_neighbour_does_not(temperature: float) -> None:
    """Sampling ended in a traceback; the likeliest token of NaN was any token."""
    failed, written = write(poisoned(), temperature)
    assert not failed.finite and not failed.finished and failed.ids == ()
    assert written == write(sound()[0], temperature)[1] and written.finite


def test_the_smallest_temperature_takes_the_likeliest_token() -> None:
    """Divided by it, logits overflowed, and their softmax was NaN."""
    logits = torch.tensor([1.0, 30.0, 2.0])
    sampling = TextSampling(temperature=1e-40)
    assert sample(logits, sampling, torch.Generator().manual_seed(0)) == 1


@dataclass
class Told:
    """What a loop said and gave."""

    events: list[Event]
    trajectories: list[Trajectory]


def run(made: Engine, mode: str, previews: int = 0) -> Told:
    flow = FlowSettings(num_flow_steps=2)
    player = BagelPlayer(
        made,
        BagelSettings(
            flows=Flows().each(lambda _: flow), preview_every=previews, max_text_tokens=20
        ),
    )
    policy = Policy(mode=mode)  # type: ignore[arg-type]
    loop = StagedLoop(RoleChoice().roles(player, "tiny"), policy)
    events: list[Event] = []
    return Told(events, loop.run([POISON, SOUND], [0, 1], events.append))


def test_a_loop_fails_the_sample_with_its_reason_and_draws_the_other() -> None:
    told = run(poisoned(), "one-shot", previews=1)
    failed, drawn = told.trajectories
    assert failed.provenance["failure"] == "not_finite" and not failed.complete
    assert "latents are not finite" in failed.provenance["failure_detail"]
    assert failed.provenance["retries"] == {"not_finite": 2} and failed.last_sketch is None
    assert drawn.complete and drawn.last_sketch is not None
    of_first = [event for event in told.events if event.rollout == 0]
    assert [type(event) for event in of_first] == [Retried, Retried, Failed]
    seen = [type(event) for event in told.events if event.rollout == 1]
    assert seen.count(Previewed) == 2 and seen[-1] is Stopped


def test_a_choice_by_logits_of_nan_is_none() -> None:
    told = run(poisoned(), "staged")
    assert told.trajectories[0].provenance["failure"] == "not_finite"
    assert told.trajectories[1].provenance.get("failure") != "not_finite"


def test_an_evaluation_counts_the_sample_as_failed() -> None:
    from staged.backends.generators.generator import DrawnImage, NoImage
    from staged.generate.outcome import outcome_of

    failed, drawn = map(outcome_of, run(poisoned(), "one-shot").trajectories)
    assert isinstance(failed, NoImage) and failed.reason == "not_finite" and failed.final
    assert isinstance(drawn, DrawnImage)


def test_numbers_are_looked_at_in_every_type() -> None:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        for bad in (NAN, INF, -INF):
            tensor = torch.ones(3, 5, dtype=dtype)
            assert all_finite(tensor)
            tensor[1, 2] = bad
            assert not all_finite(tensor)
    assert all_finite(torch.arange(3)) and all_finite(torch.empty(0))
    assert all_finite(torch.full((9,), torch.finfo(torch.float16).max, dtype=torch.float16))
    eight = torch.ones(4).to(torch.float8_e4m3fn)
    assert all_finite(eight)
    assert not all_finite(torch.tensor([1.0, NAN]).to(torch.float8_e4m3fn))
    with pytest.raises(NotFiniteError, match="the sum is not finite"):
        require_finite(torch.tensor(NAN), "the sum is")


def test_bytes_are_made_of_numbers_only() -> None:
    assert to_pixels(torch.full((3, 2, 2), 7.0)).max() == 255
    with pytest.raises(NotFiniteError):
        to_pixels(torch.full((3, 2, 2), NAN))


@dataclass(frozen=True, kw_only=True)
class Some:
    share: float = 0.5
    pair: tuple[float, float] = (0.1, 0.2)
    weights: dict[str, float] | None = None
    absent: float | None = None


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_settings_take_finite_numbers_only(bad: float) -> None:
    names = ("share", "pair", "absent")
    check_range(Some(), *names, minimum=0, maximum=1)
    check_finite(Some(weights={"a": 1.0}))
    for broken in (Some(share=bad), Some(pair=(0.1, bad)), Some(absent=bad)):
        with pytest.raises(ValueError, match=r"is .*(nan|inf)"):
            check_range(broken, *names, minimum=-1e300)
        with pytest.raises(ValueError, match="give a finite number"):
            check_finite(broken)
    with pytest.raises(ValueError, match="weights"):
        check_finite(Some(weights={"a": bad}))


@pytest.mark.parametrize("bad", [NAN, INF, -1.0])
def test_a_budget_of_nan_is_refused(bad: float) -> None:
    """Whatever is spent is not more than NaN: `--budget-usd nan` spent without an end."""
    from staged.jobs.budget import Budget

    with pytest.raises(ValueError, match=r"usd is .*; give 0 or more"):
        Budget(usd=bad)


@pytest.mark.parametrize(
    "override",
    ["arguments.true_cfg_scale=.nan", "arguments={a: [1, .inf]}", "arguments.a.b=-.inf"],
)
def test_free_values_of_settings_are_finite_too(override: str) -> None:
    """They reached the pipeline."""
    assert load(DiffusersSettings, None, ["arguments={a: [1, {b: 0.5}]}"]).arguments
    with pytest.raises(ValueError, match=r"arguments\.\w.*it must be finite"):
        load(DiffusersSettings, None, [override])


def test_scores_of_nan_are_no_scores(tmp_path: Path) -> None:
    """`max(-1, min(1, nan))` is 1: the best score there is."""
    from eval.clip import ClipEmbedder
    from eval.pictures import Picture
    from eval.rewards.scorers import RewardScore, clip_score
    from staged.images import encode_png

    path = tmp_path / "image.png"
    path.write_bytes(encode_png(np.full((20, 20, 3), 90, np.uint8)))
    folder = clips.save_tiny(tmp_path / "clip")
    clip = ClipEmbedder.load(folder, folder)
    with torch.no_grad():
        clip.model.visual_projection.weight.fill_(NAN)
    scores: dict[int, RewardScore] = {}
    picture = Picture(name="image.png", path=path, prompt="a star")
    clip_score(clip).score([picture], scores.__setitem__)
    assert scores[0].value is None and scores[0].reason == "not_finite"


def test_a_detector_of_nan_has_not_found_nothing() -> None:
    """Nothing passes a threshold with NaN, and nothing found is an answer."""
    from eval.geneval.mask2former import postprocess

    sizes = {"input_size": (32, 32), "inner_size": (32, 32), "image_size": (16, 16)}
    classes, masks = torch.zeros(3, 81), torch.zeros(3, 8, 8)
    postprocess(classes, masks, **sizes)
    for broken in ((classes * NAN, masks), (classes, masks + INF)):
        with pytest.raises(NotFiniteError, match="logits of the detector"):
            postprocess(*broken, **sizes)


def test_an_answer_of_nan_has_no_probability(tmp_path: Path) -> None:
    """`min(nan, 1.0)` went into the mean of an evaluation."""
    from eval.vqa.local import LocalAnswerer
    from eval.vqa.question import VqaAnswer, VqaQuestion
    from staged.images import encode_png

    path = tmp_path / "image.png"
    path.write_bytes(encode_png(np.full((16, 16, 3), 90, np.uint8)))
    answerer = LocalAnswerer.load(vlm.save_tiny(tmp_path / "model"))
    words = answerer.model.get_input_embeddings().weight
    with torch.no_grad():
        words[vlm.WORDS.index("four")] = NAN
    questions = [VqaQuestion(image=path, text=text, accepted=("yes",)) for text in ("four", "no")]
    answers: dict[int, VqaAnswer] = {}
    answerer.answer(questions, answers.__setitem__)
    assert answers[0].probability is None and answers[0].reason == "not_finite"
    assert answers[1].probability is not None
