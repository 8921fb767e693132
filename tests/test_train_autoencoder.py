import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import staged.shapes
from staged import settings
from staged.model.checkpoint import load_autoencoder
from staged.model.config import AutoencoderConfig
from staged.model.finite import NotFiniteError
from train.autoencoder.__main__ import main
from train.autoencoder.job import train
from train.autoencoder.measure import measure_latents, measure_reconstructions
from train.autoencoder.norms import speed_up_norms
from train.autoencoder.scenes import render_scenes, sample_scenes, to_unit
from train.autoencoder.settings import AutoencoderJob
from train.autoencoder.training import Training, learning_rate

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs/shapes/autoencoder.yaml"
SHIPPED = Path(staged.shapes.__file__).parent / "checkpoints"


def tiny(out: Path, **changes: object) -> AutoencoderJob:
    job = AutoencoderJob(
        out=out,
        model=AutoencoderConfig(
            channels=32, multipliers=(1, 1, 1), num_blocks=1, latent_channels=4,
            scaling_factor=1.0, shift_factor=0.0,
        ),
        num_scenes=6, num_test_scenes=2, num_steps=4, batch_size=2, warmup_steps=2,
        checkpoint_steps=2, log_steps=10, num_threads=1,
    )  # fmt: skip
    return dataclasses.replace(job, **changes)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    train(tiny(tmp_path / "whole"))

    take_step = Training.take_step

    def killed_in_fourth_step(self, scenes):
        if self.step == 3:
            raise KeyboardInterrupt
        return take_step(self, scenes)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "take_step", killed_in_fourth_step)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(tmp_path / "killed"))
    assert Training(tiny(tmp_path / "killed")).step == 2
    train(tiny(tmp_path / "killed"))

    runs = [Training(tiny(tmp_path / run)) for run in ("whole", "killed")]
    for name, tensor in runs[0].average.tensors.items():
        assert torch.equal(tensor, runs[1].average.tensors[name]), name
    for one, other in zip(*(run.autoencoder.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)
    files = [(tmp_path / run / "ae.safetensors").read_bytes() for run in ("whole", "killed")]
    assert files[0] == files[1]


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path):
    Training(tiny(tmp_path)).save()
    with pytest.raises(ValueError, match="other settings"):
        Training(tiny(tmp_path, lr=0.5))


@pytest.mark.usefixtures("one_thread")
def test_exported_latents_have_zero_mean_and_unit_deviation(tmp_path):
    job = tiny(tmp_path)
    document = train(job)
    assert document == json.loads((tmp_path / "ae.json").read_text())
    assert set(document["metrics"]["noise_0.0"]) == {"psnr_db", "scenes_kept"}
    config = settings.from_dict(AutoencoderConfig, document["autoencoder"])
    autoencoder = load_autoencoder(tmp_path, config)
    assert autoencoder.config == config
    images = render_scenes(sample_scenes(job.num_scenes, (job.seed, 0)))
    latents = autoencoder.encode(to_unit(images)).detach()
    assert latents.shape == (6, 4, 12, 12)
    assert float(latents.mean()) == pytest.approx(0, abs=1e-4)
    assert float(latents.std()) == pytest.approx(1, abs=1e-4)


@pytest.mark.usefixtures("one_thread")
def test_training_lowers_the_loss(tmp_path):
    training = Training(tiny(tmp_path, num_steps=40, num_scenes=2, lr=3e-3, dtype="float32"))
    scenes = render_scenes(sample_scenes(2, (0, 0)))
    losses = [training.take_step(scenes).reconstruction.item() for _ in range(40)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_the_faster_group_norm_is_a_group_norm():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.GroupNorm(32, 64)).double()
    nn.init.normal_(plain[0].weight)
    nn.init.normal_(plain[0].bias)
    fast = nn.Sequential(nn.GroupNorm(32, 64)).double()
    fast.load_state_dict(plain.state_dict())
    speed_up_norms(fast.double())
    assert type(fast[0]) is not nn.GroupNorm
    x = torch.randn(2, 64, 5, 7, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [norm(value) for norm, value in zip((plain, fast), inputs, strict=True)]
    torch.testing.assert_close(outputs[0], outputs[1])
    for output in outputs:
        (output**3).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth(tmp_path):
    job = tiny(tmp_path, num_steps=1000, warmup_steps=10, lr=1.0)
    rates = [learning_rate(step, job) for step in range(1001)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0, abs=1e-3)
    assert rates[-1] == pytest.approx(0.01)


def test_scenes_follow_from_the_seed_alone():
    assert sample_scenes(20, (3, 0))[:5] == sample_scenes(5, (3, 0))
    assert sample_scenes(5, (3, 0)) != sample_scenes(5, (3, 1))


@pytest.mark.parametrize(
    ("field", "value"), [("num_steps", 0), ("noise", -0.1), ("seed", -1), ("ema_decay", 1.0)]
)
def test_settings_out_of_range_are_refused_by_name(tmp_path, field, value):
    with pytest.raises(ValueError, match=field):
        tiny(tmp_path, **{field: value})


def test_help_lists_the_settings(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "kl_weight" in shown and "python -m train.autoencoder configs/" in shown


def test_the_shipped_autoencoder_is_the_one_its_record_describes():
    record = json.loads((SHIPPED / "ae.json").read_text())
    job = settings.load(AutoencoderJob, CONFIG, [f"dtype={record['settings']['dtype']}"])
    assert record["finished"]
    assert record["settings"] == settings.to_dict(job)
    assert record["fingerprint"] == settings.fingerprint(job)
    stored = load_file(SHIPPED / "ae.safetensors")
    assert stored["encoder.conv_in.weight"].shape == (job.model.channels, 3, 3, 3)


@pytest.mark.usefixtures("one_thread")
def test_the_shipped_autoencoder_keeps_what_the_detector_sees():
    record = json.loads((SHIPPED / "ae.json").read_text())
    config = settings.from_dict(AutoencoderConfig, record["autoencoder"])
    autoencoder = load_autoencoder(SHIPPED, config)
    scenes = sample_scenes(48, (0, 2))
    mean, deviation, _ = measure_latents(autoencoder, render_scenes(scenes))
    assert (mean - config.shift_factor) * config.scaling_factor == pytest.approx(0, abs=0.1)
    assert deviation * config.scaling_factor == pytest.approx(1, abs=0.1)
    assert measure_reconstructions(autoencoder, scenes, 0.0, 0)["scenes_kept"] >= 0.95
    assert measure_reconstructions(autoencoder, scenes, 0.2, 0)["scenes_kept"] >= 0.9


def test_a_step_of_nan_ends_the_run_and_changes_nothing(tmp_path):
    """It went on, and wrote an autoencoder of NaN."""
    training = Training(tiny(tmp_path))
    scenes = render_scenes(sample_scenes(6, (0, 0)))
    training.take_step(scenes)
    training.save()
    bias = training.autoencoder.decoder.conv_out.bias
    with torch.no_grad():
        bias[0] = torch.nan
    before = [p.clone() for p in training.autoencoder.parameters()]
    with pytest.raises(NotFiniteError, match=r"of step 1 are, with lr .*not finite"):
        training.take_step(scenes)
    for parameter, kept in zip(training.autoencoder.parameters(), before, strict=True):
        assert torch.equal(parameter, kept) or parameter is bias
    assert training.step == 1 and Training(tiny(tmp_path)).step == 1
    with pytest.raises(NotFiniteError, match="decoded pictures"):
        measure_reconstructions(training.autoencoder, sample_scenes(1, (0, 1)), 0.0, 0)


def test_a_state_of_an_older_version_is_neither_read_nor_begun_over(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"a pickle")
    with pytest.raises(ValueError, match="state of an older version"):
        Training(tiny(tmp_path))
