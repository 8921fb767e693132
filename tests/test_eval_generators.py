"""Generators other than our own: a diffusers pipeline, an images service, a folder of images."""

import base64
import json
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from serving import serve
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from test_editor import letters
from test_eval_judge import write_prompts
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from eval.__main__ import main as staged_eval
from eval.generation.benchmarks import BENCHMARKS
from eval.generation.existing import Existing
from eval.generation.samples import BenchmarkSample, sample_seed
from eval.generation.settings import ExistingSettings
from staged import images
from staged.backends.diffusers.editor import DiffusersEditor
from staged.backends.diffusers.settings import DiffusersSettings
from staged.backends.generators.endpoint import Endpoint
from staged.backends.generators.generator import DrawnImage, NoImage
from staged.backends.generators.pipeline import Pipeline
from staged.backends.generators.settings import EndpointSettings, PipelineSettings
from staged.backends.idea2img.painter import GeneratorModel
from staged.loops.idea2img.roles import DraftRequest
from staged.trajectory import ImageRef


def samples(*prompts, number=1):
    return [
        BenchmarkSample(
            prompt_key=str(place),
            prompt=prompt,
            image=image,
            number=place * number + image,
            seed=sample_seed(0, prompt, image),
            path=PurePosixPath(f"{place}/{image}.png"),
        )
        for place, prompt in enumerate(prompts)
        for image in range(number)
    ]


def picture(shade):
    return np.full((4, 6, 3), shade, np.uint8)


def outcomes(generator, wanted):
    drawn = {str(sample.path): outcome for sample, outcome in generator.draw(wanted)}
    return [drawn[str(sample.path)] for sample in wanted]


# --- a diffusers pipeline ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory):
    torch.manual_seed(0)
    text = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=1,
        vocab_size=64,
        bos_token_id=0,
        eos_token_id=1,
    )
    folder = tmp_path_factory.mktemp("pipeline")
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=1,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(vocab=letters("</w>"), merges=[], model_max_length=16),
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 8),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            norm_num_groups=2,
            attention_head_dim=4,
        ),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def pipeline(folder, **more):
    settings = {"device": "cpu", "dtype": "float32", "width": 16, "height": 8} | more
    settings.setdefault("num_inference_steps", 2)
    return Pipeline(PipelineSettings(model=str(folder), **settings))


@pytest.fixture(scope="module")
def loaded(pipeline_folder):
    return pipeline(pipeline_folder)


def test_a_pipeline_draws_each_sample_by_its_own_seed(loaded):
    wanted = samples("a star", "a ring", number=2)
    together = [outcome.pixels for outcome in outcomes(loaded, wanted)]
    assert all(pixels.shape == (8, 16, 3) and pixels.dtype == np.uint8 for pixels in together)
    assert len({pixels.tobytes() for pixels in together}) == 4
    torch.manual_seed(7)
    alone = [outcomes(loaded, [sample])[0].pixels for sample in wanted]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1


def image_to_image(folder, **more):
    return DiffusersEditor(
        DiffusersSettings(
            model=str(folder), pipeline="StableDiffusionImg2ImgPipeline", licence="none",
            device="cpu", dtype="float32", num_inference_steps=4, arguments={"strength": 0.5},
            **more,
        )
    )  # fmt: skip


def test_an_image_to_image_pipeline_draws_as_large_as_its_image(pipeline_folder):
    editor = image_to_image(pipeline_folder)
    shade = np.full((16, 32, 3), 90, np.uint8)
    first, again, other = (
        editor.edit(shade, "a star", width=32, height=16, seed=seed) for seed in (1, 1, 2)
    )
    assert first.shape == (16, 32, 3)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert editor.edit(shade, "a star", width=16, height=16, seed=1).shape == (16, 16, 3)
    with pytest.raises(ValueError, match="first_step_without_image"):
        editor.edit(None, "a star", width=16, height=16, seed=1)
    blank = image_to_image(pipeline_folder, first_step_without_image=False)
    assert blank.edit(None, "a star", width=16, height=16, seed=1).shape == (16, 16, 3)


def test_a_generator_and_an_editor_are_one_image_model_to_explore(pipeline_folder, loaded):
    both = GeneratorModel(loaded, image_to_image(pipeline_folder), editing={"strength": 0.5})
    assert both.edits and both.at_once == 1 and both.identity()["strength"] == 0.5
    onto = ImageRef.from_array(np.full((33, 40, 3), 90, np.uint8))
    wanted = [
        DraftRequest(prompt="a star", seed=1),
        DraftRequest(prompt="add a ring", seed=1, onto=onto, edit=True),
    ]
    came = {request.prompt: outcome for request, outcome in both.draw(wanted)}
    assert came["a star"].pixels.shape == (8, 16, 3)
    assert came["add a ring"].pixels.shape == (32, 32, 3)
    alone = GeneratorModel(loaded)
    assert not alone.edits
    with pytest.raises(ValueError, match="draws onto no picture; name an editor"):
        list(alone.draw(wanted))


def test_a_pipeline_is_known_by_its_weights_and_arguments(pipeline_folder, loaded):
    same = pipeline(pipeline_folder)
    assert loaded.identity() == same.identity()
    json.dumps(same.identity())
    other = pipeline(pipeline_folder, num_inference_steps=3, guidance_scale=2.0)
    assert other.identity()["arguments"] != same.identity()["arguments"]
    with torch.no_grad():
        next(same._pipeline.unet.parameters()).add_(1e-3)
    assert same.identity()["weights"] != other.identity()["weights"]
    assert loaded.name == f"{pipeline_folder} (StableDiffusionPipeline)"


def test_what_a_pipeline_withholds_is_a_failure_for_good(loaded, monkeypatch):
    draws = loaded._pipeline

    def withholding(prompt, **arguments):
        result = draws(prompt=prompt, **arguments)
        result.nsfw_content_detected = [True] * len(prompt)
        return result

    monkeypatch.setattr(loaded, "_pipeline", withholding)
    [outcome] = outcomes(loaded, samples("a star"))
    assert isinstance(outcome, NoImage) and outcome.final and outcome.reason == "content_filter"


def test_a_picture_of_nan_is_a_failure_and_its_neighbours_are_none(pipeline_folder):
    """It was a black picture, and was scored."""
    broken, whole = pipeline(pipeline_folder), pipeline(pipeline_folder)
    wanted = samples("aa zz", "aa bb")
    text = broken._pipeline.text_encoder.get_input_embeddings()
    with torch.no_grad():
        text.weight[broken._pipeline.tokenizer("z")["input_ids"][1]] = torch.nan
        text.weight[broken._pipeline.tokenizer("zz")["input_ids"][1]] = torch.nan
    failed, drawn = outcomes(broken, wanted)
    assert isinstance(failed, NoImage) and failed.reason == "not_finite" and failed.final
    assert "not finite" in failed.detail
    assert (drawn.pixels == outcomes(whole, wanted)[1].pixels).all()


def test_a_picture_of_infinities_is_a_failure_though_a_clamp_makes_it_white(pipeline_folder):
    broken = pipeline(pipeline_folder)
    with torch.no_grad():
        broken._pipeline.vae.decoder.conv_out.bias.fill_(torch.inf)
    assert [o.reason for o in outcomes(broken, samples("a", "b"))] == ["not_finite"] * 2


def test_a_pipeline_that_does_not_take_the_arguments_is_refused(pipeline_folder):
    with pytest.raises(ValueError, match="takes no 'true_cfg_scale'"):
        pipeline(pipeline_folder, guidance_argument="true_cfg_scale", guidance_scale=4.0)
    with pytest.raises(ValueError, match="has no pipeline 'StarPipeline'"):
        pipeline(pipeline_folder, pipeline="StarPipeline")


# --- an images service ---------------------------------------------------------------------------


class Service:
    """Draws a shade by the request's seed; for some prompts it has other answers, in turn."""

    def __init__(self, special=None):
        self.special, self.bodies = special or {}, []
        route = Route("/v1/images/generations", self.generate, methods=["POST"])
        self.app = Starlette(routes=[route])

    async def generate(self, request):
        body = await request.json()
        self.bodies.append(body)
        queue = self.special.get(body["prompt"], [None])
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if answer is not None:
            return answer if isinstance(answer, Response) else JSONResponse(answer)
        image = images.encode_png(picture(body.get("seed", 9) % 256))
        encoded = base64.b64encode(image).decode()
        usage = {"input_tokens": 10, "output_tokens": 1000, "total_tokens": 1010}
        return JSONResponse({"created": 0, "data": [{"b64_json": encoded}], "usage": usage})


def refusal(status, code, message="no", headers=None):
    return JSONResponse({"error": {"message": message, "code": code}}, status, headers)


def endpoint(url, **more):
    return Endpoint(EndpointSettings(model="m", base_url=url, **{"max_attempts": 2} | more))


def test_a_service_gets_the_seed_and_its_image_is_kept():
    service, wanted = Service(), samples("a star", "a ring", number=2)
    with serve(service.app) as url:
        generator = endpoint(
            url,
            size="6x4",
            extra_body={"quality": "high"},
            usd_per_image=0.5,
            usd_per_million_output_tokens=10.0,
        )
        found = outcomes(generator, wanted)
    for sample, outcome in zip(wanted, found, strict=True):
        assert (outcome.pixels == picture(sample.seed % 2**31 % 256)).all()
        assert outcome.cost == {"usd": pytest.approx(0.51)}
    assert {body["seed"] for body in service.bodies} == {s.seed % 2**31 for s in wanted}
    body = service.bodies[0]
    assert (body["n"], body["size"], body["quality"]) == (1, "6x4", "high")
    assert body["response_format"] == "b64_json"


def test_null_leaves_a_field_out():
    service = Service()
    with serve(service.app) as url:
        fields = {"size": None, "seed_field": None, "response_format": None}
        [outcome] = outcomes(endpoint(url, **fields), samples("a star"))
    assert isinstance(outcome, DrawnImage)
    assert service.bodies[0] == {"model": "m", "prompt": "a star", "n": 1}


def test_a_service_that_is_busy_is_asked_again():
    busy = refusal(429, "rate_limit_exceeded", headers={"retry-after-ms": "1"})
    service = Service({"a star": [busy, None], "a ring": [busy, busy, None]})
    with serve(service.app) as url:
        found = outcomes(endpoint(url, max_attempts=2), samples("a star", "a ring"))
    assert isinstance(found[0], DrawnImage)
    assert (found[1].reason, found[1].final) == ("rate_limit", False)
    assert len(service.bodies) == 4


@pytest.mark.parametrize(
    ("answer", "reason", "final"),
    [
        (refusal(400, "moderation_blocked"), "content_filter", True),
        (refusal(400, "prompt_too_long"), "bad_request", False),
        (refusal(500, None, headers={"retry-after-ms": "1"}), "server_error", False),
        ({"data": []}, "invalid_reply", False),
        ({"data": [{"url": "http://127.0.0.1/x.png"}]}, "invalid_reply", False),
        ({"data": [{"b64_json": "not base64"}]}, "invalid_image", False),
        ({"data": [{"b64_json": "AAAA"}]}, "invalid_image", False),
        ({"data": [{"b64_json": "AAAA"}, {"b64_json": "AAAA"}]}, "invalid_reply", False),
        ({"data": {"b64_json": 7}}, "invalid_reply", False),
        ({"error": {"message": "hurt", "code": "moderation_blocked"}}, "content_filter", True),
        ({"error": {"message": "no such size", "code": 400}}, "bad_request", False),
        (Response(b"<html>", media_type="application/json"), "server_error", False),
    ],
)
def test_what_is_no_image_is_a_failure_with_a_reason(answer, reason, final):
    with serve(Service({"a ring": [answer]}).app) as url:
        found = outcomes(endpoint(url), samples("a star", "a ring"))
    assert isinstance(found[0], DrawnImage)
    assert (found[1].reason, found[1].final) == (reason, final)


@pytest.mark.parametrize("usage", [None, {}, [], "free", {"input_tokens": "many"}])
def test_an_image_is_paid_for_whatever_the_service_counts(usage):
    encoded = base64.b64encode(images.encode_png(picture(3))).decode()
    folded = "data:image/png;base64," + "\n".join(encoded[i : i + 20] for i in range(0, 999, 20))
    answer = {"data": [{"b64_json": folded}], "usage": usage}
    with serve(Service({"a ring": [answer]}).app) as url:
        generator = endpoint(url, usd_per_image=0.5, usd_per_million_input_tokens=1.0)
        [outcome] = outcomes(generator, samples("a ring"))
    assert isinstance(outcome, DrawnImage) and (outcome.pixels == picture(3)).all()
    assert outcome.cost == {"usd": 0.5}


def test_a_service_that_is_down_ends_the_run():
    down = refusal(503, None, "overloaded", headers={"retry-after-ms": "1"})
    service = Service({f"star {i}": [down] for i in range(99)})
    with serve(service.app) as url, pytest.raises(ValueError, match="503: overloaded; 3 requests"):
        outcomes(endpoint(url, concurrency=2), samples(*(f"star {i}" for i in range(99))))
    assert len(service.bodies) < 12


def test_what_is_being_drawn_when_an_account_ends_is_kept():
    prompts = [f"star {i}" for i in range(9)]
    ended = JSONResponse({"error": {"message": "no credits left"}}, 402)
    service = Service({"star 4": [ended]})
    with serve(service.app) as url:
        generator, drawn = endpoint(url, concurrency=3), []
        with pytest.raises(ValueError, match="402: no credits left"):
            drawn.extend(outcome for _, outcome in generator.draw(samples(*prompts)))
    assert [body["prompt"] for body in service.bodies].count("star 4") == 1
    assert len(drawn) == len(service.bodies) - 1 < 9
    assert all(isinstance(outcome, DrawnImage) for outcome in drawn)


def test_a_reply_is_read_to_a_bound(monkeypatch):
    monkeypatch.setattr("staged.backends.generators.image_service.MAX_REPLY_BYTES", 100)
    with serve(Service().app) as url:
        [outcome] = outcomes(endpoint(url), samples("a star"))
    assert outcome.reason == "invalid_reply" and "more than 100 bytes" in outcome.detail


def test_a_service_that_refuses_everything_ends_the_run_and_the_key_stays_secret(monkeypatch):
    monkeypatch.setenv("IMAGES_KEY", "sk-secret")
    with serve(Service({"a star": [refusal(401, None, "bad key sk-secret")]}).app) as url:
        generator = endpoint(url, api_key_env="IMAGES_KEY")
        with pytest.raises(ValueError, match="refuses us") as caught:
            outcomes(generator, samples("a star"))
    assert "sk-secret" not in str(caught.value) and "[key]" in str(caught.value)
    unknown = refusal(400, "unknown_parameter", "Unknown parameter: 'seed'")
    service = Service({f"star {i}": [unknown] for i in range(99)})
    with serve(service.app) as url, pytest.raises(ValueError, match="Unknown parameter: 'seed'"):
        outcomes(endpoint(url), samples(*(f"star {i}" for i in range(99))))
    assert len(service.bodies) < 30
    with pytest.raises(ValueError, match="NO_SUCH_KEY, which is not set"):
        endpoint("http://127.0.0.1:9/v1", api_key_env="NO_SUCH_KEY")
    with pytest.raises(ValueError, match="user or password") as caught:
        endpoint("http://me:hush@127.0.0.1:9/v1")
    assert "hush" not in str(caught.value)


def test_a_service_draws_wise_and_what_failed_on_the_way_is_tried_again(tmp_path, capsys):
    write_prompts(tmp_path / "data", "verified")
    wanted = BENCHMARKS["wise-verified"](str(tmp_path / "data")).samples()
    mine = sorted(wanted, key=lambda sample: sample.seed)[5::100]
    service = Service(
        {
            mine[2].prompt: [refusal(429, None), None],
            mine[3].prompt: [refusal(400, "moderation_blocked")],
        }
    )

    def command(url):
        return staged_eval(
            ["generate", "--benchmark", "wise-verified", "--prompts", str(tmp_path / "data"),
             "--out", str(tmp_path / "images"), "--rank", "5", "--world-size", "100",
             "--generator", "endpoint", "model=m", f"base_url={url}", "max_attempts=1",
             "usd_per_image=0.25"]
        )  # fmt: skip

    with serve(service.app) as url:
        assert command(url) == 0  # the other 99 processes will see what is left
        said = capsys.readouterr().out
        assert "drew 8 images for 2.00 USD, 0 were there (process 5 of 100)" in said
        assert "no image: 1, content_filter" in said and "no image: 1, rate_limit" in said
        assert command(url) == 0
        assert "drew 1 images for 0.25 USD, 8 were there" in capsys.readouterr().out
    assert len(service.bodies) == 11
    names = {path.name for path in (tmp_path / "images").glob("*.png")}
    assert names == {f"{sample.prompt_key}.png" for sample in mine} - {f"{mine[3].prompt_key}.png"}


# --- a folder of images --------------------------------------------------------------------------


def existing(folder, pattern):
    return Existing(ExistingSettings(images=folder, pattern=pattern))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{prompt}_{image}", ["0_0.png", "0_1.webp", "1_0.jpg", "1_1.png"]),
        ("{number:05}.png", ["00000.png", "00001.png", "00002.png", "00003.png"]),
        ("{prompt:05}/samples/{image:04}.png",
         ["00000/samples/0000.png", "00000/samples/0001.png",
          "00001/samples/0000.png", "00001/samples/0001.png"]),
    ],
)  # fmt: skip
def test_a_pattern_finds_each_sample(tmp_path, pattern, names):
    for shade, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(images.encode_png(picture(shade)))
    found = outcomes(existing(tmp_path, pattern), samples("a star", "a ring", number=2))
    assert [int(outcome.pixels[0, 0, 0]) for outcome in found] == [0, 1, 2, 3]


def test_what_is_missing_or_broken_in_a_folder_has_failed(tmp_path):
    (tmp_path / "0.png").write_bytes(images.encode_png(picture(1)))
    (tmp_path / "1.png").write_bytes(images.encode_png(picture(1))[:40])
    found = outcomes(existing(tmp_path, "{prompt}"), samples("a star", "a ring", "a cross"))
    assert isinstance(found[0], DrawnImage)
    assert [outcome.reason for outcome in found[1:]] == ["broken image", "no image"]


def test_a_pattern_that_cannot_tell_images_apart_is_refused(tmp_path):
    wanted = samples("a star", number=2)
    [first, _] = outcomes(existing(tmp_path, "{prompt}-{image}"), wanted)
    assert first.detail == f"no {tmp_path}/0-0 with an ending of an image"
    with pytest.raises(ValueError, match="finds the same image for each of a prompt"):
        outcomes(existing(tmp_path, "{prompt}"), wanted)
    for name in ("0-0.png", "0-0.jpg"):
        (tmp_path / name).write_bytes(images.encode_png(picture(1)))
    with pytest.raises(ValueError, match="both could be meant"):
        outcomes(existing(tmp_path, "{prompt}-{image}"), wanted)
    for pattern in (
        "{name}.png",
        "star.png",
        "{prompt.real}",
        "{prompt",
        "../{number}",
        "/{number}",
    ):
        with pytest.raises(ValueError, match="pattern"):
            existing(tmp_path, pattern)
    with pytest.raises(ValueError, match="is no folder"):
        existing(tmp_path / "none", "{number}")
