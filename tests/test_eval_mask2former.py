import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    SwinConfig,
)

from eval.clip import to_pixels
from eval.converters.mmdet import convert, convert_file, convert_model
from eval.geneval.clip_color import ClipColors, cut_out
from eval.geneval.mask2former import (
    MEAN,
    STD,
    Mask2FormerDetector,
    mask_box,
    postprocess,
    preprocess,
)
from eval.geneval.names import CLASSES, COLORS
from staged.model.finite import NotFiniteError
from staged.roles import Detection

STAGES = ["stage1", "stage2", "stage3", "stage4"]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    swin = SwinConfig(
        embed_dim=32, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8], window_size=7,
        drop_path_rate=0.0, out_features=STAGES,
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=64, mask_feature_size=64, hidden_dim=64,
        encoder_feedforward_dim=16, dim_feedforward=24, encoder_layers=2, decoder_layers=3,
        num_attention_heads=2, num_queries=6,
        id2label=dict(enumerate(CLASSES)),
        label2id={name: index for index, name in enumerate(CLASSES)},
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def in_mmdet_layout(model):
    """Write mmdet's keys by hand, with the conversions that mmdet makes of Swin's own weights."""
    hf = model.state_dict()
    state = {}

    def take(target, source):
        for kind in ("weight", "bias"):
            if f"{source}.{kind}" in hf:
                state[f"{target}.{kind}"] = hf[f"{source}.{kind}"]

    def join(target, source, separator="."):
        for kind in ("weight", "bias"):
            state[f"{target}{separator}{kind}"] = torch.cat(
                [hf[f"{source}.{name}_proj.{kind}"] for name in "qkv"]
            )

    swin = "model.pixel_level_module.encoder.swin"
    take("backbone.patch_embed.projection", f"{swin}.embeddings.patch_embeddings.projection")
    take("backbone.patch_embed.norm", f"{swin}.embeddings.norm")
    for stage, depth in enumerate((1, 1, 2, 1)):
        for block in range(depth):
            target = f"backbone.stages.{stage}.blocks.{block}"
            source = f"{swin}.encoder.layers.{stage}.blocks.{block}"
            take(f"{target}.norm1", f"{source}.layernorm_before")
            take(f"{target}.norm2", f"{source}.layernorm_after")
            join(f"{target}.attn.w_msa.qkv", f"{source}.attention")
            take(f"{target}.attn.w_msa.proj", f"{source}.attention.o_proj")
            table = "relative_position_bias_table"
            state[f"{target}.attn.w_msa.{table}"] = hf[
                f"{source}.attention.relative_position_bias.{table}"
            ]
            state[f"{target}.attn.w_msa.relative_position_index"] = torch.zeros(49, 49).long()
            take(f"{target}.ffn.layers.0.0", f"{source}.mlp.fc1")
            take(f"{target}.ffn.layers.1", f"{source}.mlp.fc2")
        if stage < 3:
            target = f"backbone.stages.{stage}.downsample"
            source = f"{swin}.encoder.layers.{stage}.downsample"
            weight = hf[f"{source}.reduction.weight"]
            rows, merged = weight.shape
            weight = weight.reshape(rows, 4, merged // 4)[:, [0, 2, 1, 3], :].transpose(1, 2)
            state[f"{target}.reduction.weight"] = weight.reshape(rows, merged)
            for kind in ("weight", "bias"):
                norm = hf[f"{source}.norm.{kind}"].reshape(4, merged // 4)[[0, 2, 1, 3], :]
                state[f"{target}.norm.{kind}"] = norm.transpose(0, 1).reshape(merged)
        take(
            f"backbone.norm{stage}",
            f"model.pixel_level_module.encoder.hidden_states_norms.stage{stage + 1}",
        )
    pixels, target = "model.pixel_level_module.decoder", "panoptic_head.pixel_decoder"
    for level in range(3):
        take(f"{target}.input_convs.{level}.conv", f"{pixels}.input_projections.{level}.0")
        take(f"{target}.input_convs.{level}.gn", f"{pixels}.input_projections.{level}.1")
    for layer in range(2):
        to, source = f"{target}.encoder.layers.{layer}", f"{pixels}.encoder.layers.{layer}"
        for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
            take(f"{to}.attentions.0.{name}", f"{source}.self_attn.{name}")
        take(f"{to}.norms.0", f"{source}.self_attn_layer_norm")
        take(f"{to}.ffns.0.layers.0.0", f"{source}.fc1")
        take(f"{to}.ffns.0.layers.1", f"{source}.fc2")
        take(f"{to}.norms.1", f"{source}.final_layer_norm")
    state[f"{target}.level_encoding.weight"] = hf[f"{pixels}.level_embed"]
    take(f"{target}.lateral_convs.0.conv", f"{pixels}.adapter_1.0")
    take(f"{target}.lateral_convs.0.gn", f"{pixels}.adapter_1.1")
    take(f"{target}.output_convs.0.conv", f"{pixels}.layer_1.0")
    take(f"{target}.output_convs.0.gn", f"{pixels}.layer_1.1")
    take(f"{target}.mask_feature", f"{pixels}.mask_projection")
    queries = "model.transformer_module"
    for layer in range(2):
        to = f"panoptic_head.transformer_decoder.layers.{layer}"
        source = f"{queries}.decoder.layers.{layer}"
        for kind in ("weight", "bias"):
            state[f"{to}.attentions.0.attn.in_proj_{kind}"] = hf[
                f"{source}.cross_attn.in_proj_{kind}"
            ]
        take(f"{to}.attentions.0.attn.out_proj", f"{source}.cross_attn.out_proj")
        join(f"{to}.attentions.1.attn.in_proj", f"{source}.self_attn", "_")
        take(f"{to}.attentions.1.attn.out_proj", f"{source}.self_attn.out_proj")
        take(f"{to}.norms.0", f"{source}.cross_attn_layer_norm")
        take(f"{to}.norms.1", f"{source}.self_attn_layer_norm")
        take(f"{to}.norms.2", f"{source}.final_layer_norm")
        take(f"{to}.ffns.0.layers.0.0", f"{source}.fc1")
        take(f"{to}.ffns.0.layers.1", f"{source}.fc2")
    take("panoptic_head.transformer_decoder.post_norm", f"{queries}.decoder.layernorm")
    for layer in range(3):
        take(
            f"panoptic_head.mask_embed.{2 * layer}",
            f"{queries}.decoder.mask_predictor.mask_embedder.{layer}.0",
        )
    take("panoptic_head.query_embed", f"{queries}.queries_embedder")
    take("panoptic_head.query_feat", f"{queries}.queries_features")
    take("panoptic_head.level_embed", f"{queries}.level_embed")
    take("panoptic_head.cls_embed", "class_predictor")
    return state


def test_a_converted_checkpoint_has_every_weight_and_the_same_output(model):
    state = in_mmdet_layout(model)
    converted = convert_model(state)
    unused = {"criterion.empty_weight"} | {
        key for key in model.state_dict() if ".swin.layernorm." in key
    }
    assert set(convert(state)) == set(model.state_dict()) - unused
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        expected, found = model(pixel_values=image), converted(pixel_values=image)
    torch.testing.assert_close(found.class_queries_logits, expected.class_queries_logits)
    torch.testing.assert_close(found.masks_queries_logits, expected.masks_queries_logits)


def test_pixels_are_merged_as_mmdet_merges_them(model):
    # mmdet: Unfold, LayerNorm, Linear, each with the weights as they stand in its checkpoint.
    state, prefix = in_mmdet_layout(model), "backbone.stages.0.downsample"
    features = torch.randn(1, 32, 8, 12)
    unfolded = nn.Unfold(kernel_size=2, stride=2)(features).transpose(1, 2)
    normed = nn.functional.layer_norm(
        unfolded, (128,), state[f"{prefix}.norm.weight"], state[f"{prefix}.norm.bias"]
    )
    expected = normed @ state[f"{prefix}.reduction.weight"].T
    swin = convert_model(state).model.pixel_level_module.encoder.swin
    with torch.no_grad():
        found = swin.encoder.layers[0].downsample(features.flatten(2).transpose(1, 2), (8, 12))
    torch.testing.assert_close(found, expected)


def test_foreign_missing_and_misshapen_weights_are_refused(model):
    state = in_mmdet_layout(model)
    with pytest.raises(ValueError, match=r"roi_head\.x: no weight"):
        convert(state | {"roi_head.x": torch.zeros(1)})
    without = dict(state)
    del without["panoptic_head.mask_embed.2.bias"]
    with pytest.raises(ValueError, match=r"1 missing: .*embedder\.1\.0\.bias"):
        convert_model(without)
    spoilt = state | {"panoptic_head.cls_embed.bias": torch.full((81,), torch.inf)}
    with pytest.raises(ValueError, match=r"1 not finite .*: class_predictor\.bias"):
        convert_model(spoilt)
    with pytest.raises(ValueError, match="Swin backbone"):
        convert_model({"backbone.conv1.weight": torch.zeros(1)})


def test_a_converted_file_is_loaded_and_says_where_it_is_from(model, tmp_path):
    torch.save({"state_dict": in_mmdet_layout(model), "meta": {}}, tmp_path / "m.pth")
    convert_file(tmp_path / "m.pth", tmp_path / "converted")
    converted = Mask2FormerDetector.load(tmp_path / "converted")
    assert converted.name.startswith("mask2former, mmdet weights")
    model.save_pretrained(tmp_path / "plain")
    plain = Mask2FormerDetector.load(tmp_path / "plain")
    assert plain.name.startswith("mask2former, transformers weights")
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert [d.box for d in plain.detect(image)] == [d.box for d in converted.detect(image)]
    (tmp_path / "m.pth").write_bytes(b"broken")
    with pytest.raises(ValueError, match="not a checkpoint of plain tensors"):
        convert_file(tmp_path / "m.pth", tmp_path / "x")


@pytest.mark.parametrize(
    ("size", "inner", "padded"),
    [
        ((512, 512), (800, 800), (800, 800)),
        ((1024, 1024), (800, 800), (800, 800)),
        ((480, 640), (800, 1067), (800, 1088)),
        ((300, 900), (444, 1333), (448, 1344)),
    ],
)
def test_images_are_scaled_and_padded_as_the_reference_does(size, inner, padded):
    pixels, found = preprocess(np.full((*size, 3), 255, np.uint8))
    assert found == inner
    assert pixels.shape == (1, 3, *padded)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    torch.testing.assert_close(pixels[0, :, 0, 0], (255 - mean) / std)
    if padded != inner:
        # The padding is grey before it is normalised.
        torch.testing.assert_close(pixels[0, :, -1, -1], (128 - mean) / std)


def test_channels_stay_red_green_blue():
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = 200
    pixels, _ = preprocess(image)
    channels = pixels[0, :, 0, 0] * torch.tensor(STD) + torch.tensor(MEAN)
    torch.testing.assert_close(channels, torch.tensor([200.0, 0.0, 0.0]))


def test_scores_boxes_and_masks_by_hand():
    # Two queries on a 32 x 64 input with an 8 x 16 image inside its left half, scaled by 4.
    masks = torch.full((2, 8, 16), -20.0)
    masks[0, 2:6, 1:4] = 20.0
    masks[1, :, 8:] = 20.0
    classes = torch.full((2, 81), -50.0)
    classes[0, CLASSES.index("cat")] = 0.0
    classes[0, 80] = 0.0
    classes[1, CLASSES.index("dog")] = 5.0
    found = postprocess(classes, masks, input_size=(32, 64), inner_size=(32, 32), image_size=(8, 8))
    # The second query is sure of a dog, but all of its mask lies in the padding.
    assert [d.class_name for d in found] == ["cat"]
    assert found[0].score == pytest.approx(0.5, abs=0.02)
    assert found[0].box == (1.0, 2.0, 4.0, 6.0)
    assert found[0].mask.shape == (8, 8)
    assert found[0].mask.sum() == 12


def test_one_query_may_be_of_two_classes():
    masks = torch.full((1, 8, 8), 20.0)
    classes = torch.full((1, 81), -50.0)
    classes[0, [CLASSES.index("cat"), CLASSES.index("dog")]] = 1.0
    found = postprocess(
        classes, masks, input_size=(32, 32), inner_size=(32, 32), image_size=(32, 32)
    )
    assert {d.class_name for d in found} == {"cat", "dog"}
    assert all(d.score == pytest.approx(0.5) for d in found)


def test_boxes_end_behind_the_last_pixel():
    mask = torch.zeros(10, 12, dtype=torch.bool)
    assert mask_box(mask) == (0, 0, 0, 0)
    mask[3:5, 7:12] = True
    assert mask_box(mask) == (7, 3, 12, 5)


def test_another_number_of_labels_is_refused(model):
    config = Mask2FormerConfig.from_dict(model.config.to_dict() | {"id2label": {0: "a"}})
    config.backbone_config = model.config.backbone_config
    with pytest.raises(ValueError, match="1 labels"):
        Mask2FormerDetector(Mask2FormerForUniversalSegmentation(config), weights="x")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    torch.manual_seed(4)
    words = sorted(
        {*"abcdefghijklmnopqrstuvwxyz-", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz-")}
    )
    vocabulary = {w: i for i, w in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    folder = tmp_path_factory.mktemp("clip")
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "projection_dim": 8}  # fmt: skip
    config = CLIPConfig(
        text_config={
            **size, "vocab_size": len(vocabulary), "eos_token_id": len(vocabulary) - 1,
            "bos_token_id": len(vocabulary) - 2, "max_position_embeddings": 77,
        },
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )  # fmt: skip
    return CLIPModel(config), tokenizer


def test_colors_are_classified_by_three_averaged_texts(clip):
    model, tokenizer = clip
    classifier = ClipColors(model, tokenizer)
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    boxes = [(0.0, 0.0, 30.0, 40.0), (20.0, 5.0, 60.0, 20.0)]
    objects = [Detection(class_name="cup", box=box, score=0.9) for box in boxes]
    found = classifier.classify(image, objects)
    # By hand, through CLIP's own forward pass, whose logits are scaled cosines.
    for color, detection in zip(found, objects, strict=True):
        pixels = to_pixels(cut_out(image, detection), 32)
        totals = []
        for name in COLORS:
            texts = [f"a photo of a {name} cup", f"a photo of a {name}-colored cup",
                     f"a photo of a {name} object"]  # fmt: skip
            tokens = tokenizer(texts, padding=True, return_tensors="pt")
            with torch.no_grad():
                out = model(pixel_values=pixels, **tokens)
            mean = out.text_embeds.mean(0)
            totals.append(float(mean / mean.norm() @ out.image_embeds[0]))
        assert color == COLORS[int(np.argmax(totals))]


def test_the_object_lies_on_grey_in_its_box():
    image = np.full((10, 10, 3), 200, np.uint8)
    mask = np.zeros((10, 10), bool)
    mask[2:4, 3:5] = True
    detection = Detection(class_name="cup", box=(3.0, 2.0, 6.0, 4.0), score=1.0, mask=mask)
    crop = cut_out(image, detection)
    assert crop.shape == (2, 3, 3)
    assert crop[:, :2].tolist() == [[[200] * 3] * 2] * 2
    assert crop[:, 2].tolist() == [[0x99] * 3] * 2
    with pytest.raises(ValueError, match="holds no pixel"):
        cut_out(image, Detection(class_name="cup", box=(3.0, 2.0, 3.0, 4.0), score=1.0))


def test_crops_are_scaled_by_their_shorter_side_and_centred():
    crop = np.zeros((20, 60, 3), np.uint8)
    crop[:, 20:40] = 255
    pixels = to_pixels(crop, 32)
    assert pixels.shape == (1, 3, 32, 32)
    # The white third in the middle fills the square.
    assert float(pixels[0, 0, 16, 4:28].min()) > 1.5


def test_a_colour_of_nan_is_none(clip):
    """The largest of NaN was the first colour of the list."""
    model, tokenizer = clip
    found = Detection(class_name="cat", box=(1.0, 1.0, 9.0, 9.0), score=0.9)
    image = np.full((12, 12, 3), 90, np.uint8)
    colors = ClipColors(copy.deepcopy(model), tokenizer)
    assert len(colors.classify(image, [found])) == 1
    with torch.no_grad():
        colors.model.visual_projection.weight[0, 0] = torch.inf
    with pytest.raises(NotFiniteError, match="colour scores of a cat"):
        colors.classify(image, [found])
