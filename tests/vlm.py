"""Vision-language models of transformers, tiny and random, in folders as real ones come."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from eval.vqa.local import processor_class

WORDS = ["[unk]", "<image>", "user:", "assistant:", "yes", "Yes", "no", "No", "four", "Four", "4"]
TEMPLATE = (
    "{% for m in messages %}user: {% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} assistant:"
)


def tokenizer_of(words: list[str], special: list[str]) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(words)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="[unk]",
        pad_token="[unk]",
        additional_special_tokens=special,
    )


def save_tiny_qwen(folder: Path) -> Path:
    """Qwen3-VL, GenEval 2's judge, which takes videos too."""
    torch.manual_seed(0)
    special = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"]
    words = [*WORDS, *special]
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": 16, "intermediate_size": 16, "head_dim": 8,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
            "initializer_range": 0.5, "rope_parameters": {
                "rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1],
            },
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
            "patch_size": 4, "out_hidden_size": 16, "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0], "initializer_range": 0.5,
        },
        image_token_id=words.index("<|image_pad|>"),
        video_token_id=words.index("<|video_pad|>"),
        vision_start_token_id=words.index("<|vision_start|>"),
        vision_end_token_id=words.index("<|vision_end|>"),
    )  # fmt: skip
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(patch_size=4, min_pixels=64, max_pixels=1024)
    template = TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    processor = processor_class(config)(
        images, tokenizer_of(words, special), chat_template=template
    )
    processor.save_pretrained(folder)
    return folder


def save_tiny(folder: Path) -> Path:
    """LLaVA."""
    torch.manual_seed(0)
    tokenizer = tokenizer_of(WORDS, ["<image>"])
    size: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }  # fmt: skip
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**size, image_size=16, patch_size=8, projection_dim=8),
        text_config=LlamaConfig(**size, vocab_size=len(WORDS), initializer_range=0.5),
        image_token_index=WORDS.index("<image>"),
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.weight.normal_()
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llava"
    return folder
