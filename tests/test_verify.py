"""The verify command against the reference numbers, and against damaged ones."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from staged.cli import main as staged
from staged.verify import choices, main
from staged.verify.comparison import compare
from staged.verify.groups import GROUPS

GOLDEN = Path(__file__).parent / "golden"
CONFIG = Path(__file__).parents[1] / "configs/bagel_7b/model"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "bagel_tiny", tmp_path / "golden"))


def change(folder: Path, name: str, by: float, file: str = "golden.safetensors") -> None:
    tensors = load_file(folder / file)
    tensors[name].view(-1)[0] += by
    save_file(tensors, folder / file)


@pytest.mark.parametrize("group", list(GROUPS))
def test_group_agrees_with_the_reference(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["bagel", str(GOLDEN / "bagel_tiny"), "--group", group])
    output = capsys.readouterr().out
    assert code == 0, output
    assert f"passed: {group}" in output


def test_every_reference_tensor_is_an_input_or_compared(capsys: pytest.CaptureFixture[str]) -> None:
    """A tensor that nothing reads would be a requirement silently dropped."""
    from staged.verify.golden import Golden

    golden = Golden.read(GOLDEN / "bagel_tiny")
    read = set()

    class Watched(dict[str, torch.Tensor]):
        def __getitem__(self, name: str) -> torch.Tensor:
            read.add(name)
            return super().__getitem__(name)

    object.__setattr__(golden, "tensors", Watched(golden.tensors))
    from staged.verify.comparison import Comparisons

    for group in GROUPS.values():
        group(golden, Comparisons())
    assert golden.tensors.keys() - read == set()


def test_keys_and_shapes_agree_at_full_size(capsys: pytest.CaptureFixture[str]) -> None:
    keys = GOLDEN / "bagel_7b_mot_keys.json"
    assert main(["bagel", "--keys", str(keys), "--config", str(CONFIG)]) == 0
    output = capsys.readouterr().out
    assert "model: 1223 of 1223" in output
    assert "ae: 244 of 244" in output


def test_another_key_or_shape_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads((GOLDEN / "bagel_7b_mot_keys.json").read_text())
    document["model"]["vae2llm.bias"] = [3583]
    document["ae"]["decoder.spare.weight"] = [1]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(document))
    assert main(["bagel", "--keys", str(path), "--config", str(CONFIG)]) == 1
    output = capsys.readouterr().out
    assert "vae2llm.bias is [3584], expected [3583]" in output
    assert "decoder.spare.weight is absent, expected [1]" in output


@pytest.mark.parametrize(
    ("group", "name", "by"),
    [
        ("vae", "vae.decoded", 1),
        ("train", "train.loss", 0.01),
        ("train", "train.labels", 1),
        ("schedule", "schedule.n50_shift3", float("nan")),
    ],
)
def test_a_reference_that_differs_fails_its_group(
    copy: Path, group: str, name: str, by: float, capsys: pytest.CaptureFixture[str]
) -> None:
    change(copy, name, by)
    assert main(["bagel", str(copy), "--group", group]) == 1
    assert "FAILED: 1 comparisons" in capsys.readouterr().out


def test_a_wrong_weight_fails(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(copy, "language_model.model.layers.0.self_attn.k_norm.weight", 1, "model.safetensors")
    assert main(["bagel", str(copy), "--group", "train"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_every_group_can_be_chosen() -> None:
    assert tuple(GROUPS) == choices.GROUPS


def test_what_cannot_be_compared_fails_in_one_line(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "golden.json").write_text('{"config": {}}')
    for folder in (tmp_path / "nowhere", copy):
        assert staged(["verify", "bagel", str(folder)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("staged: error: ") and said.count("\n") == 1
        assert "golden.json" in said


@pytest.mark.parametrize(
    "arguments", [[], ["bagel"], ["bagel", "x", "--keys", "y"], ["bagel", "x", "--group", "y"]]
)
def test_wrong_arguments_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_comparison_is_relative_to_the_largest_magnitude() -> None:
    expected = torch.tensor([100.0, 0.0])
    assert compare("g", "n", torch.tensor([100.0, 0.005]), expected).passed
    assert not compare("g", "n", torch.tensor([100.0, 0.02]), expected).passed


def test_comparison_of_integers_is_exact() -> None:
    expected = torch.tensor([10**9, 5])
    assert compare("g", "n", expected, expected).passed
    assert not compare("g", "n", torch.tensor([10**9, 6]), expected).passed


@pytest.mark.parametrize(
    "found", [torch.ones(3), torch.ones(2, dtype=torch.int64), torch.tensor([1.0, float("nan")])]
)
def test_another_shape_type_or_nan_never_passes(found: torch.Tensor) -> None:
    assert not compare("g", "n", found, torch.ones(2)).passed
