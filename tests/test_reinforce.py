"""Runs of reinforcement: they learn what is rewarded, and go on to the same bits."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import plan, sketch
from training import SLOW, World, assert_same, build, die_at, start, write_data

from staged.engine.company import Company
from staged.model.loss import Predictions
from staged.model.open import open_checkpoint
from staged.shards import ShardIndex
from staged.trajectory import Sketch, Stop, Trajectory
from train.ema import WeightAverage
from train.examples import Examples
from train.objective import forward_in
from train.optimizer import make_optimizers
from train.randomness import SampleRandom
from train.reinforce import job
from train.reinforce.job import Reinforcer
from train.reinforce.packing import RewardedPack, build_rewarded_pack
from train.reinforce.record import RewardRecord, figures_of
from train.reinforce.rollouts import starts_of
from train.reinforce.scorer import ScorerGrader, open_grader
from train.reinforce.settings import (
    CollapseSettings,
    ImageSettings,
    ProbeSettings,
    ReinforceSettings,
    RewardSettings,
    RolloutSettings,
    TextSettings,
)
from train.reinforce.step import PolicyObjective, PolicyStep
from train.reinforce.watch import collapse, warnings_of
from train.settings import LoraSettings, LowRankSettings, OptimizerSettings, Subset

TIMES = ("drawn_s", "learned_s")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = build(tmp_path_factory.mktemp("world"), [])
    (made.folder / "prompts.txt").write_text("a star\na ring\na heart\n")
    return made


def settings(world: World, out: Path, **changes: Any) -> ReinforceSettings:
    """Bright pictures are rewarded, of a model of random weights."""
    made = ReinforceSettings(
        init=str(world.init),
        prompts=world.folder / "prompts.txt",
        out=out,
        iterations=2,
        pack_tokens=300,
        packs_per_step=2,
        dtype="float32",
        device="cpu",
        num_threads=1,
        trackers=(),
        rollouts=RolloutSettings(
            num_prompts=2, group_size=4, mode="one-shot", num_flow_steps=2, guidance_scale=1.0
        ),
        reward=RewardSettings(kind="scorer", scorer="brightness:Brightness"),
        optimizer=OptimizerSettings(lr=1e-2, schedule="constant", warmup_steps=0, ema_decay=0.5),
    )
    return replace(made, **changes)


def made(out: Path) -> dict[str, Any]:
    """The newest state, the result, the newest rollouts, and the log without times."""
    newest = max((out / "state").iterdir())
    result = next(path for path in (out / "checkpoint", out / "adapter") if path.is_dir())
    drawn = max((out / "rollouts").iterdir())
    files = [path for folder in (newest, result, drawn) for path in sorted(folder.iterdir())]
    results: dict[str, Any] = {path.name: path.read_bytes() for path in files if path.is_file()}
    results["log"] = [
        {name: value for name, value in line.items() if name not in TIMES} for line in log(out)
    ]
    return results


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def run(chosen: ReinforceSettings) -> dict[str, Any]:
    Reinforcer(chosen).run()
    return made(chosen.out)


def run_and_die(chosen: ReinforceSettings, target: str, call: int, when: str) -> None:
    die_at(target, call, when)
    Reinforcer(chosen).run()


def test_a_run_goes_on_to_the_same_bits_and_binds_its_settings(
    world: World, tmp_path: Path
) -> None:
    probe = ProbeSettings(prompts=world.folder / "prompts.txt", every_iterations=5, max_prompts=1)
    whole = run(settings(world, tmp_path / "whole", epochs=2, probe=probe))
    half = settings(world, tmp_path / "half", epochs=2, probe=probe, iterations=1)
    Reinforcer(half).run()
    # The last iteration of a part is probed; that is all that is more.
    went_on = run(replace(half, iterations=2))
    cut = {name: value for name, value in whole.items() if name != "log"}
    assert_same({name: went_on[name] for name in cut}, cut)
    assert [line["step"] for line in whole["log"]] == [0, 1, 2]
    for name in ("reward", "image_loss", "grad_norm"):
        assert [line.get(name) for line in log(half.out)] == [
            line.get(name) for line in whole["log"]
        ]
    with pytest.raises(ValueError, match=r"images\.beta"):
        Reinforcer(replace(half, images=replace(half.images, beta=0.5)))
    other = tmp_path / "other.txt"
    other.write_text("a cross\n")
    with pytest.raises(ValueError, match="prompts"):
        Reinforcer(replace(half, prompts=other))


@pytest.mark.slow
def test_a_run_goes_on_to_the_same_bits_where_pictures_share_calls_and_where_they_do_not(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they do is a process's own finding; the smallest models never find so."""
    drawn = settings(world, tmp_path).rollouts
    chosen = settings(
        world,
        tmp_path / "whole",
        init="miniature:staged",
        pack_tokens=1500,
        rollouts=replace(drawn, guidance_scale=2.0),
    )
    found = list[bool]()
    tried = Company.changes_nothing

    def trying(company: Company, shapes: Any) -> bool:
        found.extend([tried(company, shapes)] if len(shapes) > 1 else [])
        return tried(company, shapes)

    monkeypatch.setattr(Company, "changes_nothing", trying)
    whole = run(chosen)
    assert any(found), "some shared a call"
    half = replace(chosen, out=tmp_path / "half", iterations=1)
    Reinforcer(half).run()
    monkeypatch.setattr(Company, "changes_nothing", lambda _, shapes: len(shapes) == 1)
    assert_same(run(replace(half, iterations=2)), whole)


def test_a_rollout_that_no_pack_holds_ends_a_run_until_packs_are_larger(
    world: World, tmp_path: Path
) -> None:
    chosen = settings(world, tmp_path, iterations=1)
    with pytest.raises(ValueError, match="raise pack_tokens"):
        Reinforcer(replace(chosen, pack_tokens=8)).run()
    drawn = tmp_path / "rollouts" / "00001"
    before = {path: path.stat().st_mtime_ns for path in drawn.iterdir() if path.is_file()}
    assert len(before) >= 2
    Reinforcer(chosen).run()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert Reinforcer(replace(chosen, pack_tokens=400)).iteration == 1


def test_a_run_that_collapsed_stays_so_and_one_begun_anew_uses_nothing_of_it(
    world: World, tmp_path: Path
) -> None:
    chosen = settings(
        world,
        tmp_path,
        iterations=4,
        reward=RewardSettings(kind="scorer", scorer="brightness:Fading"),
        collapse=CollapseSettings(stop_below=0.5, patience=1),
    )
    first = Reinforcer(chosen)
    first.run()
    assert first.iteration == 2 and "collapsed" in first.stopped
    again = Reinforcer(chosen)
    assert again.stopped == first.stopped
    again.run()
    assert again.iteration == 2 and len(log(tmp_path)) == 2
    shutil.rmtree(tmp_path / "state")
    anew = Reinforcer(replace(chosen, iterations=1))
    assert (anew.iteration, anew.stopped) == (0, "")
    anew.run()
    assert [folder.name for folder in (tmp_path / "rollouts").iterdir()] == ["00001"]


def test_figures_leave_out_what_nobody_could_rate_and_say_why_once(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = settings(
        world,
        tmp_path,
        iterations=1,
        reward=RewardSettings(kind="scorer", scorer="brightness:Choosy"),
    )
    Reinforcer(chosen).run()
    [line] = log(tmp_path)
    assert (line["reward"], line["unrated"]) == (0.5, 0.75)
    told = capsys.readouterr().err
    assert "6 pictures could not be rated" in told and told.count("4 of them: too dark") == 1


def test_a_run_that_can_draw_nothing_is_refused_before_it_begins(
    world: World, tmp_path: Path
) -> None:
    chosen = settings(world, tmp_path)
    few = replace(chosen, rollouts=replace(chosen.rollouts, max_flow_steps=1))
    with pytest.raises(ValueError, match="a sketch takes 2 flow steps"):
        Reinforcer(few)
    assert not list(tmp_path.iterdir()), "it began to write"


def test_a_signal_is_obeyed_once_what_was_drawn_is_kept_and_what_was_learned_is_saved(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It ended the run at once, with all that had been drawn."""
    chosen, calls = settings(world, tmp_path / "stopped"), list[str]()

    def signalled(owner: object, name: str, number: int) -> None:
        real = getattr(owner, name)

        def at(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if calls.count(name) == 1:
                os.kill(os.getpid(), number)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, at)

    # What is there without a run of our own would end the tests.
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("nobody waits for it"))
    try:
        signalled(job, "write", signal.SIGTERM)
        with pytest.raises(SystemExit, match="143"):
            Reinforcer(chosen).run()
        assert not (chosen.out / "state").exists()
        assert "the rollouts of iteration 1 are kept" in capsys.readouterr().err
        signalled(PolicyStep, "take", signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            Reinforcer(chosen).run()
        assert "iteration 1 of 2 is saved" in capsys.readouterr().err
        assert_same(run(chosen), run(replace(chosen, out=tmp_path / "whole")))
        assert calls.count("write") == 2 + 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_folder_in_which_another_process_went_on_keeps_what_it_holds(
    world: World, tmp_path: Path
) -> None:
    """The second of two that began at once recorded its settings over those of the first."""
    chosen = settings(world, tmp_path, iterations=1)
    other = replace(chosen, seed=5)
    first, second, third = Reinforcer(chosen), Reinforcer(other), Reinforcer(chosen)
    assert not (tmp_path / "settings.yaml").exists()
    first.run()
    kept = made(tmp_path)
    with pytest.raises(ValueError, match=r"another process has taken the run .* to iteration 1"):
        third.run()
    with pytest.raises(ValueError, match=r"another process has taken the run .* to iteration 1"):
        second.run()
    assert_same(made(tmp_path), kept)
    assert Reinforcer(chosen).iteration == 1


def test_the_result_is_the_policy_that_draws_and_its_rollouts_lie_there(
    world: World, tmp_path: Path
) -> None:
    folder = Reinforcer(settings(world, tmp_path, iterations=1)).run()
    state = load_file(str(next((tmp_path / "state" / "00000001").glob("*.safetensors"))))
    found, name = open_checkpoint(str(folder)).model.state_dict(), "latent_out.weight"
    torch.testing.assert_close(found[name], state[f"average.{name}"])
    assert not torch.equal(state[f"average.{name}"], state[f"weights.{name}"])
    rollouts = [sample.trajectory for sample in ShardIndex(tmp_path / "rollouts" / "00001")]
    assert len(rollouts) == 8
    record = RewardRecord.of(rollouts[0])
    [grade] = record.grades.sketches
    sketch = rollouts[0].steps[grade.step]
    assert isinstance(sketch, Sketch)
    assert grade.value == pytest.approx(sketch.image.array().mean() / 255)
    first, *others = (RewardRecord.of(one) for one in rollouts if one.prompt == rollouts[0].prompt)
    assert sum(one.advantages[0] for one in (first, *others)) == pytest.approx(0, abs=1e-6)


def test_good_pictures_and_words_become_likelier_and_bad_ones_less(
    world: World, tmp_path: Path
) -> None:
    def worth(trajectory: Trajectory, advantage: float) -> Trajectory:
        credits = [[step, 0.0, advantage] for step in range(len(trajectory.steps))]
        said = {"grader": "hand", "prompt": 0, "sketches": [], "words": [], "credits": credits}
        return replace(trajectory, provenance={"reward": said})

    steps = [(plan(words), sketch(seed), Stop()) for seed, words in enumerate(("a ring", "one"))]
    data = write_data(
        tmp_path / "data",
        [
            worth(Trajectory(prompt="a star", steps=made), advantage)
            for made, advantage in zip(steps, (2.0, -2.0), strict=True)
        ],
    )
    loaded = open_checkpoint(str(world.init))
    assert loaded.tokenizer is not None
    training = settings(world, tmp_path).training()
    examples = Examples(
        [Subset(path=str(data))],
        loaded.codec,
        loaded.tokenizer,
        tmp_path / "cache",
        noised_copies=4,
    )

    def packed(number: int) -> RewardedPack:
        randoms = [SampleRandom(0, number, place) for place in (0, 1)]
        return build_rewarded_pack(
            examples, [0, 1], randoms, replace(training, noised_copies=4), 2.0
        )

    parameters = dict(loaded.model.named_parameters())
    chosen = OptimizerSettings(lr=1e-3)
    step = PolicyStep(
        objective=PolicyObjective(loaded.model),
        parameters=parameters,
        drawing=WeightAverage(parameters, 0.5),
        optimizer=make_optimizers(parameters, chosen, torch.float32),
        dtype=torch.float32,
        images=ImageSettings(),
        texts=TextSettings(weight=1.0, clip=0.5, kl_weight=0.0),
        max_grad_norm=1.0,
    )
    held_out = packed(1000)
    # A picture's own opener is no word that was chosen; all else is worth what its step is.
    assert held_out.rewards.unique().tolist() == [0, 1]
    assert sorted(held_out.advantages.unique().tolist()) == [-2, 0, 2]
    assert int((held_out.advantages == 0).sum()) == 2
    good, likely = held_out.rewards == 1, held_out.advantages > 0
    unlikely = held_out.advantages < 0

    def errors() -> list[float]:
        with torch.no_grad():
            said: Predictions = forward_in(torch.float32, step.objective, held_out.pack)
        target = held_out.pack.target[held_out.pack.layout.velocity_rows]
        error = ((said.velocity - target) ** 2).mean(dim=-1)
        parts = (error[good], error[~good], said.ce[likely], said.ce[unlikely])
        return [part.mean().item() for part in parts]

    before = errors()
    for number in range(10):
        figures = step.take([packed(number)], 1e-3)
    after = errors()
    assert after[0] < before[0] and after[1] > before[1]
    assert after[2] < before[2] and after[3] > before[3]
    assert figures["image_shift"] > 0 and figures["text_kl"] > 0


@pytest.mark.parametrize(
    ("target", "call", "when"),
    [
        # Some of the rollouts are drawn, none is kept.
        pytest.param("staged.backends.bagel:BagelPlayer.step", 4, "before", marks=SLOW),
        # Half of them are written, and no index says that they are all.
        pytest.param("staged.shards.writer:ShardWriter.write", 12, "after", marks=SLOW),
        # All are there, and one of two steps is taken.
        pytest.param("train.reinforce.step:PolicyStep.take", 4, "before", marks=SLOW),
        # The weights have moved, the policy that draws has not.
        pytest.param("train.ema:WeightAverage.update", 2, "before", marks=SLOW),
        # The line of the log is written, the state is not.
        pytest.param("train.state:RunState.save", 2, "before", marks=SLOW),
    ],
)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(
    world: World, tmp_path: Path, target: str, call: int, when: str
) -> None:
    chosen = settings(world, tmp_path / "killed")
    process = start(run_and_die, chosen, target, call, when)
    process.join(600)
    assert process.exitcode == -signal.SIGKILL, "the moment never came"
    assert_same(run(chosen), run(replace(chosen, out=tmp_path / "whole")))


@pytest.mark.slow
def test_the_staged_miniature_learns_pictures_and_words_also_as_a_lora(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of a red square left of a blue ring\n")
    chosen = ReinforceSettings(
        init="miniature:staged",
        prompts=prompts,
        out=tmp_path / "run",
        pack_tokens=3200,
        dtype="float32",
        num_threads=1,
        iterations=2,
        trackers=(),
        rollouts=RolloutSettings(
            num_prompts=1, group_size=4, num_flow_steps=4, max_rounds=2, max_refinements=1
        ),
        optimizer=OptimizerSettings(lr=1e-4, schedule="constant", warmup_steps=0, ema_decay=0.5),
    )
    folder = Reinforcer(chosen).run()
    before, after = (open_checkpoint(str(c)).model.state_dict() for c in (chosen.init, folder))
    for expert in ("und", "gen"):
        name = f"layers.0.{expert}.q_proj.weight"
        assert not torch.equal(before[name], after[name])
    rollouts = [sample.trajectory for sample in ShardIndex(chosen.out / "rollouts" / "00002")]
    assert all(one.provenance["reward"]["grader"] == "detector" for one in rollouts)
    assert any(RewardRecord.of(one).grades.words for one in rollouts)
    lines = log(chosen.out)
    assert all(line["text_nats"] > 0 and line["num_sketches"] >= 1 for line in lines)
    lora = replace(
        chosen,
        out=tmp_path / "lora",
        lora=LoraSettings(und=LowRankSettings(rank=4), gen=LowRankSettings(rank=4)),
    )
    adapter = Reinforcer(lora).run()
    assert (adapter / "adapter_model.safetensors").is_file()
    assert open_checkpoint(str(adapter)).tokenizer is not None


# --- its parts -----------------------------------------------------------------------------------


def test_prompts_come_in_turn_and_every_rollout_has_a_seed_of_its_own() -> None:
    prompts = [f"prompt {n}" for n in range(5)]
    chosen = RolloutSettings(num_prompts=2, group_size=3)
    drawn = [starts_of(prompts, iteration, chosen, 7) for iteration in range(1, 6)]
    assert all(len(starts) == 6 for starts in drawn)
    turn = [start.number for starts in drawn for start in starts[::3]]
    assert sorted(turn[:5]) == sorted(turn[5:]) == list(range(5)) and turn[:5] != turn[5:]
    seeds = [start.seed for starts in drawn for start in starts]
    assert len(set(seeds)) == len(seeds)
    assert starts_of(prompts, 3, chosen, 7) == drawn[2] != starts_of(prompts, 3, chosen, 8)
    assert len({start.key for start in drawn[0]}) == 6
    # More are asked for than there are: the group is larger.
    assert {start.number for start in starts_of(prompts[:1], 1, chosen, 7)} == {0}


def test_a_scorer_is_made_by_name_and_what_is_none_is_told() -> None:
    made = open_grader(RewardSettings(kind="scorer", scorer="brightness:Brightness"))
    assert isinstance(made, ScorerGrader) and made.name == "brightness"
    for scorer, words in (
        ("brightness:Darkness", "cannot be made"),
        ("nowhere:Brightness", "cannot be made"),
        ("brightness:nothing_that_rates", "must have `rate`"),
    ):
        with pytest.raises(ValueError, match=words):
            open_grader(RewardSettings(kind="scorer", scorer=scorer))
    with pytest.raises(ValueError, match="module:function"):
        RewardSettings(kind="scorer")
    with pytest.raises(ValueError, match="kind=scorer"):
        RewardSettings(scorer="brightness:Brightness")
    with pytest.raises(ValueError, match="range"):
        RewardSettings(range=(1.0, 1.0))


def test_a_run_stops_where_its_rewards_collapse_and_only_there() -> None:
    chosen = CollapseSettings(stop_below=0.5, patience=2)
    assert collapse([0.6, 0.6, 0.2], chosen) == ""
    assert collapse([0.6, 0.6, 0.31, 0.31], chosen) == ""
    assert "collapsed" in collapse([0.6, 0.6, 0.2, 0.2], chosen)
    assert collapse([0.6, 0.6, 0.2, 0.2], replace(chosen, stop_below=0)) == ""


def test_what_looks_wrong_is_told() -> None:
    assert warnings_of({}, None, 3) == []
    assert "nothing to learn" in warnings_of({}, None, 0)[0]
    assert "plain drawing" in warnings_of({"probe/one_shot": 0.3}, 0.5, 3)[0]
    assert warnings_of({"probe/one_shot": 0.45}, 0.5, 3) == []
    assert "reward" not in figures_of([]) and figures_of([])["unrated"] == 0
