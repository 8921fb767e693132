"""Settings: strict types, helpful errors, exact round trips."""

import dataclasses
import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from staged import settings, strict_yaml
from staged.settings import SettingsError


class Precision(enum.Enum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    lr: float = 2e-5
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.95)
    schedule: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, got {self.lr}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job.

    Attributes:
        out: Folder of the run,
            made if need be.
    """

    out: Path
    name: str = "job"
    num_steps: int = 10
    compile: bool = False
    precision: Precision = Precision.FLOAT32
    limit: int | None = None
    shards: tuple[Path, ...] = ()
    seed: int | str = 0
    weights: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    optimizer: Optimizer = Optimizer(lr=1e-3)
    ema: Optimizer | None = None


def load(tmp_path: Path, text: str, *overrides: str) -> Job:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return settings.load(Job, path, overrides)


def problems(tmp_path: Path, text: str, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text, *overrides)
    return caught.value.problems


def test_a_file_states_only_what_differs(tmp_path: Path) -> None:
    job = load(tmp_path, "out: runs/a\noptimizer: {lr: 1e-4}\nshards: [a.tar, b.tar]\n")
    assert job == Job(
        out=Path("runs/a"),
        optimizer=Optimizer(lr=1e-4),
        shards=(Path("a.tar"), Path("b.tar")),
    )


def test_a_partial_section_keeps_the_defaults_of_its_field(tmp_path: Path) -> None:
    assert load(tmp_path, "out: a\noptimizer: {schedule: constant}").optimizer.lr == 1e-3
    assert load(tmp_path, "out: a", "optimizer.schedule=constant").optimizer.lr == 1e-3


@dataclass(frozen=True, kw_only=True)
class Mixture:
    parts: tuple[Optimizer, ...] = ()
    names: dict[str, float] = field(default_factory=dict)
    title: str = "a"
    most: int | float | None = None


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("parts.0.lr", "parts: expected a list, which has no keys; give parts=[...] whole"),
        ("title.x", "title: expected str, which has no keys; give title=... whole"),
        ("most.x.y", "most: expected int or float or null, which has no keys; give most=... whole"),
    ],
)
def test_an_override_of_a_part_of_what_has_none_is_told_as_it_was_written(
    key: str, message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.from_dict(Mixture, {"parts": [{"lr": 1.0}]}, overrides=[f"{key}=2", "names.a=1"])
    assert str(caught.value) == f"override '{key}=2': {message}"


def test_a_list_can_be_given_whole_beside_parts_of_a_mapping() -> None:
    found = settings.from_dict(Mixture, {}, overrides=["names.a=1", "parts=[{lr: 2}]"])
    assert found == Mixture(names={"a": 1.0}, parts=(Optimizer(lr=2.0),))


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("num_steps=1_000", "num_steps", 1000),
        ("compile=true", "compile", True),
        ("name=true", "name", "true"),
        ("name=12", "name", "12"),
        ("name=a: b # c", "name", "a: b # c"),
        ("name='12'", "name", "12"),
        ("name=", "name", ""),
        ("name=x=y", "name", "x=y"),
        ("limit=null", "limit", None),
        ("limit=3", "limit", 3),
        ("seed=3", "seed", 3),
        ("seed=three", "seed", "three"),
        ("precision=bfloat16", "precision", Precision.BFLOAT16),
        ("shards=[a, b]", "shards", (Path("a"), Path("b"))),
        ("weights.plan=2", "weights", {"plan": 2.0}),
        ("extra.a.b=2", "extra", {"a": {"b": 2}}),
        ("out=~/runs", "out", Path.home() / "runs"),
        ("ema.lr=1e-2", "ema", Optimizer(lr=1e-2)),
        ("optimizer={lr: 1}", "optimizer", Optimizer(lr=1)),
    ],
)
def test_the_type_of_a_field_decides_how_an_override_is_read(
    tmp_path: Path, override: str, key: str, value: object
) -> None:
    read = getattr(load(tmp_path, "out: runs", override), key)
    assert read == value
    assert type(read) is type(value)


def test_the_last_override_wins_and_adds_to_a_section_given_whole(tmp_path: Path) -> None:
    job = load(tmp_path, "out: a", "optimizer={lr: 1}", "optimizer.lr=2", "optimizer.lr=3")
    assert job.optimizer.lr == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_steps: 1.5", "line 1: num_steps: expected int, got 1.5"),
        ("num_steps: 10.0", "write 10"),
        ("num_steps: true", "expected int, got true"),
        ("compile: 1", "expected bool, got 1"),
        ("compile: yes", "expected bool, got 'yes'"),
        ("name: 12", "expected str, got 12; quote it if it is text"),
        ("limit: x", "expected int, got 'x'"),
        ("precision: bfloat", "did you mean 'bfloat16'?"),
        ("shards: a.tar", "expected a list, got 'a.tar'"),
        ("weights: {a: x}", "weights.a: expected float, got 'x'"),
        ("optimizer:\n  betas: [0.9]", "line 2: optimizer.betas: expected 2 values, got 1"),
        ("optimizer:\n  lr: .inf", "line 2: optimizer.lr: expected float, got inf; it must be fin"),
        ("optimizer:\n  lr: -1", "line 2: optimizer: lr must be positive, got -1"),
        ("optimizer: 3", "optimizer: expected a section, got 3"),
        ("seed: 1.5", "seed: expected int or str, got 1.5"),
        ("numsteps: 3", "line 1: numsteps: unknown key; did you mean 'num_steps'?"),
    ],
)
def test_a_wrong_value_is_named_with_its_line_and_the_way_out(
    tmp_path: Path, text: str, message: str
) -> None:
    (problem,) = problems(tmp_path, f"{text}\nout: a\n")
    assert problem.startswith(str(tmp_path / "job.yaml"))
    assert message in problem


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    found = problems(
        tmp_path, "num_steps: x\noptimizer: {lrr: 1}\n", "optimiser.lr=1", "compile=2", "nonsense"
    )
    assert [problem.split(": ")[1] for problem in found].count("num_steps") == 1
    assert any("override 'nonsense': write it as section.key=value" in p for p in found)
    assert any("override 'optimiser.lr=1': optimiser: unknown key; did you" in p for p in found)
    assert any("optimizer.lrr: unknown key; did you mean 'lr'?" in p for p in found)
    assert any("override 'compile=2': compile: expected bool" in p for p in found)
    assert any("out: missing: give it a Path" in p for p in found)
    assert len(found) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "line 2: key 'a' is given twice"),
        ("a: &x 1\nb: *x\n", "line 1: anchors and aliases"),
        ("a: [1\n", "line 2:"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1: could not determine a constructor"),
        ("[" * 20_000, "nested too deeply"),
        ("? [a]\n: 1\n", "a key must be text"),
        ("a: " + "9" * 5000, "integer string"),
        ("a: 1\n--- b\n", "line 2:"),
    ],
)
def test_text_that_is_not_plain_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"job\.yaml") as caught:
        load(tmp_path, text)
    assert message in str(caught.value)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a settings file"):
        load(tmp_path, "#" * (strict_yaml.MAX_BYTES + 1))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        settings.load(Job, "configs/none.yaml")
    expected = "no settings file configs/none.yaml; `staged configs` lists those shipped"
    assert str(caught.value) == expected


@pytest.mark.parametrize("given", ["configs/data/plan_sketch.yaml", "plan_sketch_openai"])
def test_a_name_that_is_nearly_that_of_a_shipped_file_brings_up_few(given: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"did you mean .*plan_sketch_openai") as caught:
        settings.load(Job, given)
    assert 1 <= str(caught.value).count("configs/") - given.count("configs/") <= 3


JOBS = st.builds(
    Job,
    out=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).map(
        lambda name: Path("runs") / name
    ),
    name=st.text(st.characters(codec="utf-8")),
    num_steps=st.integers(),
    compile=st.booleans(),
    precision=st.sampled_from(Precision),
    limit=st.none() | st.integers(),
    seed=st.integers() | st.text(st.characters(codec="utf-8")),
    weights=st.dictionaries(
        st.text(st.characters(codec="utf-8")), st.floats(allow_nan=False, allow_infinity=False)
    ),
    extra=st.dictionaries(st.sampled_from("abc"), st.none() | st.booleans() | st.text("1e-5.~tn:")),
    optimizer=st.builds(
        Optimizer, lr=st.floats(1e-300, 1e300), schedule=st.sampled_from(["cosine", "constant"])
    ),
    ema=st.none() | st.just(Optimizer()),
)


@given(job=JOBS)
def test_saved_settings_read_back_equal(tmp_path_factory: pytest.TempPathFactory, job: Job) -> None:
    path = tmp_path_factory.getbasetemp() / "resolved.yaml"
    settings.save_resolved(job, path)
    again = settings.load(Job, path)
    assert again == job
    assert settings.from_dict(Job, settings.to_dict(job)) == job
    assert settings.fingerprint(again) == settings.fingerprint(job)


def test_a_fingerprint_tells_values_apart_and_not_where_they_came_from(tmp_path: Path) -> None:
    job = Job(out=Path("a"))
    assert settings.fingerprint(load(tmp_path, "out: a\nnum_steps: 10")) == settings.fingerprint(
        job
    )
    longer = dataclasses.replace(job, num_steps=11)
    assert settings.fingerprint(longer) != settings.fingerprint(job)
    assert len(settings.fingerprint(job)) == 64


def test_the_table_shows_key_type_documentation_and_default() -> None:
    rows = {line.split()[0]: line for line in settings.describe(Job).splitlines()}
    assert "Folder of the run, made if need be. [required]" in rows["out"]
    assert rows["optimizer.lr"].endswith("Peak learning rate. [0.001]")
    assert "cosine or constant" in rows["optimizer.schedule"]
    assert "[null]" in rows["limit"]


def test_a_field_type_that_cannot_be_checked_is_our_mistake() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wrong:
        items: list[int] = field(default_factory=list)

    with pytest.raises(TypeError, match="use a scalar, a tuple"):
        settings.from_dict(Wrong, {"items": [1]})


@dataclass(frozen=True, kw_only=True)
class Span:
    low: int = 0
    high: int = 9
    step: int = 1

    def __post_init__(self) -> None:
        if self.high < self.low:
            raise ValueError(f"high is {self.high} and low is {self.low}; give low first")
        if self.step < 1:
            raise ValueError("steps must go up")


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        (["low=12"], "override 'low=12'"),
        (["step=2", "high=-1"], "override 'high=-1'"),
        (["step=0"], "override 'step=0'"),
        (["low=1"], "job.yaml, line 2"),
    ],
    ids=["named", "of several", "the only one", "the file is at fault"],
)
def test_what_a_check_refuses_is_laid_at_the_door_of_what_set_it(
    tmp_path: Path, overrides: list[str], place: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("low: 3\nhigh: -5\n" if place.startswith("job") else "low: 3\n")
    if place.startswith("job"):
        overrides = ["step=1"]
    with pytest.raises(SettingsError) as caught:
        settings.load(Span, path, overrides)
    (problem,) = caught.value.problems
    assert problem.startswith(place if place.startswith("override") else str(tmp_path / place))


def test_a_section_below_names_its_override(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "out: a\nname: b\n", "num_steps=3", "optimizer.lr=-1")
    assert problem == "override 'optimizer.lr=-1': optimizer: lr must be positive, got -1.0"
