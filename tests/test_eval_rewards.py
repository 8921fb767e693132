"""Rewards by hand on tiny random models, their converters, and the command."""

import json
from dataclasses import replace

import clips
import numpy as np
import pytest
import torch
from test_eval_judge import write_prompts
from transformers import CLIPModel, CLIPTokenizer
from vlm import save_tiny as save_tiny_vlm

from eval.__main__ import main as staged_eval
from eval.clip import ClipEmbedder, to_pixels
from eval.compare import compare
from eval.converters.open_clip import convert_model
from eval.downloads import file_sha256
from eval.results import OVERALL, BenchmarkResult
from eval.rewards.aesthetic import AestheticHead, load_head
from eval.rewards.kinds import KINDS
from eval.rewards.scorers import VqaScorer, aesthetic, clip_score, hps, pick_score
from eval.vqa.question import VqaAnswer
from staged.images import encode_png


def picture(seed, size=(40, 56)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clips.save_tiny(tmp_path_factory.mktemp("clip"))


def by_hand(folder, pixels, prompt):
    """Cosine and scale, through CLIP's own forward pass, whose logits are scaled cosines."""
    model, tokenizer = CLIPModel.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder)
    tokens = tokenizer([prompt], return_tensors="pt")
    with torch.no_grad():
        side = model.config.vision_config.image_size
        logits = model(**tokens, pixel_values=to_pixels(pixels, side)).logits_per_image
    scale = model.logit_scale.exp().item()
    return logits.item() / scale, scale


def test_scores_are_cosines_in_their_scales(folder):
    clip = ClipEmbedder.load(folder, folder)
    cosines = []
    for seed, prompt in enumerate(["a cat", "zebra", "m-n", "ooo"]):
        cosine, scale = by_hand(folder, picture(seed), prompt)
        cosines.append(cosine)
        score = {
            scorer.kind.name: scorer.formula(picture(seed), prompt)
            for scorer in (clip_score(clip), pick_score(clip), hps(clip))
        }
        assert score["clipscore"] == pytest.approx(max(100 * cosine, 0), abs=1e-4)
        assert score["pickscore"] == pytest.approx(scale * cosine, abs=1e-5)
        assert score["hps"] == pytest.approx(cosine, abs=1e-6)
    # Both signs occur, or nothing would have been seen of the cut at 0.
    assert min(cosines) < -0.05 and max(cosines) > 0.05


def test_a_prompt_that_is_read_in_part_is_noticed(folder):
    clip = ClipEmbedder.load(folder, folder)
    # Twelve tokens with the two marks: ten letters.
    assert not clip.truncates("abcdefghij")
    assert clip.truncates("abcdefghijk")
    assert torch.equal(clip.text("abcdefghijk"), clip.text("abcdefghijz"))


def test_a_prompt_that_spells_the_end_of_a_text_is_read_to_its_own_end(
    folder, tmp_path, monkeypatch
):
    """CLIP takes its vector at the first end, and whatever came after it did not count."""
    signs = [sign + end for sign in "<|>" for end in ("", "</w>")]
    monkeypatch.setattr(clips, "VOCABULARY", [*signs, *clips.VOCABULARY])
    embedder = ClipEmbedder.load(folder, clips.save_tokenizer(tmp_path))
    ids = embedder.tokenizer("a<|endoftext|>b")["input_ids"]
    assert [ids.index(embedder.tokenizer.eos_token_id), ids[0]] == [
        len(ids) - 1, embedder.tokenizer.bos_token_id
    ]  # fmt: skip


@pytest.fixture
def published_head(tmp_path):
    """A checkpoint whose numbers skip dropout, as the published one has it."""
    torch.manual_seed(1)
    widths = {0: (8, 6), 2: (6, 5), 4: (5, 4), 6: (4, 3), 7: (3, 1)}
    state = {}
    for number, (before, after) in widths.items():
        state[f"layers.{number}.weight"] = torch.randn(after, before)
        state[f"layers.{number}.bias"] = torch.randn(after)
    torch.save(state, tmp_path / "head.pth")
    return state, tmp_path / "head.pth"


def test_the_aesthetic_score_is_a_product_of_matrices_on_the_unit_embedding(
    tmp_path, folder, published_head
):
    state, path = published_head
    assert (
        staged_eval(["convert-reward", "aesthetic", str(path), "--out", str(tmp_path / "h")]) == 0
    )
    assert [file.name for file in (tmp_path / "h").iterdir()] == ["model.safetensors"]
    clip = ClipEmbedder.load(folder, folder)
    scorer = aesthetic(clip, load_head(tmp_path / "h"))

    model = CLIPModel.from_pretrained(folder)
    with torch.no_grad():
        pixels = to_pixels(picture(0), model.config.vision_config.image_size)
        features = model.get_image_features(pixel_values=pixels).pooler_output[0].numpy()
    x = features / np.linalg.norm(features)
    for number in (0, 2, 4, 6, 7):
        x = state[f"layers.{number}.weight"].numpy() @ x + state[f"layers.{number}.bias"].numpy()
    assert scorer.formula(picture(0), "whatever") == pytest.approx(float(x[0]), rel=1e-4)


def test_the_published_head_has_its_widths():
    weights = [tuple(layer.weight.shape) for layer in AestheticHead().layers]
    assert weights == [(1024, 768), (128, 1024), (64, 128), (16, 64), (1, 16)]


def test_a_head_for_another_clip_is_refused(folder):
    with pytest.raises(ValueError, match="embeddings of 768 numbers and CLIP gives 8"):
        aesthetic(ClipEmbedder.load(folder, folder), AestheticHead())


def test_open_clips_weights_give_open_clips_embeddings():
    torch.manual_seed(2)
    reference = clips.OpenClip().eval()
    model = convert_model({**reference.state_dict(), "attn_mask": torch.zeros(12, 12)})
    pixels = torch.randn(2, 3, 32, 32)
    end = len(clips.VOCABULARY) - 1
    tokens = torch.tensor([[end - 1, 3, 4, 5, end], [end - 1, 7, end, end, end]])
    with torch.no_grad():
        ours = model.get_image_features(pixel_values=pixels).pooler_output
        torch.testing.assert_close(ours, reference.visual(pixels), rtol=1e-4, atol=1e-4)
        ours = model.get_text_features(input_ids=tokens).pooler_output
        torch.testing.assert_close(ours, reference.encode_text(tokens), rtol=1e-4, atol=1e-4)
    assert model.logit_scale.item() == reference.logit_scale.item()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual.ln_post.bias": None}, "1 missing: vision_model.post_layernorm.bias"),
        ({"visual.extra": torch.zeros(1)}, "visual.extra: no weight of open_clip"),
        (
            {"ln_final.weight": torch.zeros(3)},
            "1 of another shape: text_model.final_layer",
        ),
        ({"logit_scale": torch.tensor(torch.nan)}, r"1 not finite .*: logit_scale"),
        ({"token_embedding.weight": None}, "not in open_clip's layout"),
        ({"visual.positional_embedding": torch.zeros(16, 160)}, "not 1 \\+ n \\* n"),
    ],
)
def test_half_a_checkpoint_is_not_converted(change, message):
    state = {**clips.OpenClip().state_dict(), **change}
    with pytest.raises(ValueError, match=message):
        convert_model({key: value for key, value in state.items() if value is not None})


class Evil:
    def __reduce__(self):
        return print, ("ran",)


def test_a_checkpoint_that_carries_code_is_refused(tmp_path, capsys):
    torch.save({"layers.0.weight": Evil()}, tmp_path / "evil.pth")
    for reward in ("aesthetic", "hps"):
        with pytest.raises(ValueError, match="not a checkpoint of plain tensors"):
            staged_eval(["convert-reward", reward, str(tmp_path / "evil.pth"),
                         "--out", str(tmp_path / "out")])  # fmt: skip
    assert "ran" not in capsys.readouterr().out


@pytest.fixture
def images(tmp_path):
    """Two images of each of three prompts."""
    lines = []
    for index in range(6):
        (tmp_path / f"{index}.png").write_bytes(encode_png(picture(index)))
        prompt = ("a cat", "a dog", "a very long prompt")[index // 2]
        lines.append(json.dumps({"image": f"{index}.png", "prompt": prompt}) + "\n")
    (tmp_path / "images.jsonl").write_text("".join(lines))
    return tmp_path / "images.jsonl"


def test_all_rewards_are_scored_once_and_leave_results(
    tmp_path, folder, published_head, images, capsys
):
    (tmp_path / "5.png").write_bytes(b"no image")
    torch.save({"state_dict": clips.OpenClip().half().state_dict()}, tmp_path / "hps.pt")
    tokenizer = clips.save_tokenizer(tmp_path / "tokenizer")
    staged_eval(["convert-reward", "hps", str(tmp_path / "hps.pt"), "--out", str(tmp_path / "hps"),
                 "--tokenizer", str(tokenizer)])  # fmt: skip
    staged_eval(["convert-reward", "aesthetic", str(published_head[1]),
                 "--out", str(tmp_path / "head")])  # fmt: skip
    weights = {
        "clip": folder,
        "pickscore": folder,
        "hps": tmp_path / "hps",
        "aesthetic": tmp_path / "head",
        "vqascore": save_tiny_vlm(tmp_path / "vlm"),
    }
    out = tmp_path / "rewards"
    kinds = [name for name in KINDS if name != "detector"]  # which knows another world
    arguments = ["rewards", "--images", str(images), "--reward", ",".join(kinds), "--out", str(out)]
    for name, where in weights.items():
        arguments += ["--weights", f"{name}={where}"]
    assert staged_eval(arguments) == 1
    printed = capsys.readouterr()
    assert "hps: 1 images unscored, broken image" in printed.out
    assert "5 samples are unscored" in printed.err

    first = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(first) == {f"{name}.{kind}" for name in kinds for kind in ("json", "jsonl")}
    result = BenchmarkResult.read(out / "clipscore.json")
    values = [max(100 * by_hand(folder, picture(i), "a cat" if i < 2 else "a dog")[0], 0)
              for i in range(4)]  # fmt: skip
    assert result.samples["images"]["a dog"] == pytest.approx(values[2:], abs=1e-4)
    assert (result.bounds, result.overall.num_clusters, result.overall.n) == ((0, 100), 3, 5)
    # One of the two long prompts was scored, by its beginning.
    assert result.provenance["truncated"] == 1

    # A kill left half of a line and one line too few; the others are not scored again.
    lines = (out / "hps.jsonl").read_bytes().splitlines(keepends=True)
    changed = json.loads(lines[0]) | {"score": 0.5}
    (out / "hps.jsonl").write_bytes(
        json.dumps(changed).encode() + b"\n" + b"".join(lines[1:3]) + lines[3][:20]
    )
    assert staged_eval([*arguments, "--allow-unscored"]) == 0
    again = (out / "hps.jsonl").read_bytes().splitlines(keepends=True)
    assert again[1:] == lines[1:]
    assert json.loads(again[0])["score"] == 0.5
    unchanged = {path.name: path.read_bytes() for path in out.iterdir() if "hps" not in path.name}
    assert unchanged.items() <= first.items()


def test_processes_that_share_the_work_leave_the_files_of_one(tmp_path, folder, images, capsys):
    def score(out, *more):
        return staged_eval(
            ["rewards", "--images", str(images), "--reward", "clipscore", "--out", str(out),
             "--weights", f"clip={folder}", "--name", "run", *more]
        )  # fmt: skip

    assert score(tmp_path / "one") == 0
    capsys.readouterr()
    for rank in (2, 0):
        assert score(tmp_path / "three", "--rank", str(rank), "--world-size", "3") == 0
        assert "scores of other processes are still missing" in capsys.readouterr().out
        assert not (tmp_path / "three" / "clipscore.json").exists()
    assert score(tmp_path / "three", "--rank", "1", "--world-size", "3") == 0
    for name in ("clipscore.json", "clipscore.jsonl"):
        one, three = ((tmp_path / where / name).read_bytes() for where in ("one", "three"))
        assert one == three


def test_a_result_says_how_its_images_were_made(tmp_path, folder, images):
    made = tmp_path / "made"
    settings = {"format": "x", "decides": {"seed": 7}, "also": {"name": "a generator"}}
    (made / "generation").mkdir(parents=True)
    (made / "generation" / "settings.json").write_text(json.dumps(settings))
    lines = [{"sha256": file_sha256(tmp_path / f"{index}.png")} for index in range(6)]
    (made / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = [
        *("rewards", "--images", str(images), "--reward", "clipscore"),
        *("--weights", f"clip={folder}", "--out", str(tmp_path / "out"), "--generated", str(made)),
    ]
    assert staged_eval(arguments) == 0
    result = BenchmarkResult.read(tmp_path / "out" / "clipscore.json")
    assert result.run == "a generator"
    assert result.provenance["generated"]["decides"] == {"seed": 7}
    (tmp_path / "0.png").write_bytes(encode_png(picture(9)))
    with pytest.raises(ValueError, match="1 scored images are not of"):
        staged_eval(arguments)


def test_images_of_wise_are_scored_with_its_prompts(tmp_path, folder):
    write_prompts(tmp_path / "data", "verified")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.png").write_bytes(encode_png(picture(0)))
    code = staged_eval(
        ["rewards", "--images", str(tmp_path / "images"), "--wise", "verified", "--prompts",
         str(tmp_path / "data"), "--reward", "clipscore", "--weights", f"clip={folder}",
         "--out", str(tmp_path / "out"), "--allow-unscored"]
    )  # fmt: skip
    assert code == 0
    result = BenchmarkResult.read(tmp_path / "out" / "clipscore.json")
    assert (result.overall.n, result.overall.unscored) == (1, 999)
    assert result.samples["images"]["prompt 7"][0] is not None
    assert result.provenance["unscored"] == {"no image": 999}


class Answers:
    """Gives the probabilities one after the other, the last first."""

    name = "m"

    def __init__(self, *probabilities):
        self.probabilities, self.texts = probabilities, []

    def answer(self, questions, keep):
        self.texts = [question.text for question in questions]
        for index in reversed(range(len(questions))):
            keep(index, VqaAnswer(probability=self.probabilities[index], at_most=0.9))


def test_vqascore_is_the_probability_of_yes_to_the_prompt(images):
    from eval.pictures import read_pictures

    answers, scores = Answers(*(0.1 * i for i in range(6))), {}
    scorer = VqaScorer(answers, "{prompt}? {yes}")
    scorer.score(read_pictures(images), scores.__setitem__)
    assert [scores[i].value for i in range(6)] == pytest.approx([0.1 * i for i in range(6)])
    assert answers.texts[0] == "a cat? {yes}"
    assert scorer.name == "m, asked {prompt}? {yes}"
    with pytest.raises(ValueError, match=r"with \{prompt\} in it"):
        VqaScorer(answers, "Is it good?")


def test_rewards_of_two_runs_are_paired_in_their_own_scale(tmp_path):
    def run(name, shift):
        return BenchmarkResult(
            benchmark="pickscore", variant={"scorer": "s"}, run=name, weights={"images": 1.0},
            samples={"images": {str(i): (20.0 + i + shift,) for i in range(9)}}, bounds=None,
        )  # fmt: skip

    base, better = run("a", 0), run("b", 0.5)
    gain = compare(better, base).estimates[OVERALL]
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.5, 0.5, 0.5))
    better.write(tmp_path / "b.json")
    assert BenchmarkResult.read(tmp_path / "b.json").estimates == better.estimates
    for bounds in ([1, 0], [0], "x"):
        data = {**json.loads((tmp_path / "b.json").read_text()), "bounds": bounds}
        (tmp_path / "c.json").write_text(json.dumps(data))
        with pytest.raises(ValueError, match="bounds"):
            BenchmarkResult.read(tmp_path / "c.json")
    with pytest.raises(ValueError, match="of one scale"):
        compare(replace(better, bounds=(0.0, 100.0)), base)
    with pytest.raises(ValueError, match=r"score 28\.5"):
        replace(better, bounds=(0.0, 28.0))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--reward", "clipscor"], "did you mean 'clipscore'"),
        (["--reward", "hps"], "staged eval convert-reward hps"),
        (["--reward", "hps", "--weights", "hsp=x"], "give NAME=WHERE"),
        (["--reward", "clipscore", "--wise", "legacy"], "belong together"),
        (["--reward", "clipscore", "model=x"], "'model=x' is for vqascore"),
        (["--reward", "vqascore", "--budget-usd", "1"], "add --through server"),
        (["--reward", "clipscore", "--weights", "clip=/nowhere"], "no CLIP model there"),
    ],
)
def test_what_cannot_be_scored_is_said(tmp_path, images, more, message):
    with pytest.raises(ValueError, match=message):
        staged_eval(["rewards", "--images", str(images), "--out", str(tmp_path / "o"), *more])
