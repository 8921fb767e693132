"""A BAGEL small enough to compare number by number, with weights large enough to matter."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from staged.engine.engine import Engine
from staged.model.autoencoder import Autoencoder
from staged.model.bagel import Bagel
from staged.model.codec import ImageCodec
from staged.model.config import AutoencoderConfig, BagelConfig, TransformerConfig, VisionConfig
from staged.model.tokenizer import BagelTokenizer, train_tokenizer
from staged.trajectory import (
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Trajectory,
)

VOCAB_SIZE = 320
CONFIG = BagelConfig(
    transformer=TransformerConfig(
        hidden_size=32,
        intermediate_size=48,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        vocab_size=VOCAB_SIZE,
        rope_theta=1e3,
    ),
    vision=VisionConfig(
        hidden_size=24,
        intermediate_size=32,
        num_layers=2,
        num_heads=3,
        patch_size=4,
        positions_per_side=4,
    ),
    autoencoder=AutoencoderConfig(
        channels=32,
        multipliers=(1, 1),
        num_blocks=1,
        latent_channels=3,
        scaling_factor=0.7,
        shift_factor=0.1,
    ),
    latent_patch_size=2,
    max_latent_size=4,
    vit_max_patches_per_side=4,
)
SIDE = 16
"""Longest side of an image in pixels."""


def tokenizer() -> BagelTokenizer:
    lines = ["<ins>add a red circle</ins><des>a red circle above a star</des>"] * 8
    return train_tokenizer(lines, VOCAB_SIZE)


def engine(seed: int = 0) -> Engine:
    """Every weight is drawn: a fresh model's zeros and near-zeros would hide mistakes."""
    torch.manual_seed(seed)
    model, autoencoder = Bagel(CONFIG), Autoencoder(CONFIG.autoencoder)
    model.init_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "norm" in name and name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=0.15)
        model.embed_tokens.weight.normal_()
    return Engine(model.eval(), ImageCodec(autoencoder.eval(), CONFIG), tokenizer())


def picture(seed: int, height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sketch(seed: int, height: int = SIDE, width: int = SIDE, *, loss: bool = True) -> Sketch:
    image = ImageRef.from_array(picture(seed, height, width))
    return Sketch(image=image, seed=seed, num_flow_steps=1, loss=loss)


def plan(text: str, *, loss: bool = True) -> Plan:
    return Plan(instruction=f"add {text}", description=f"{text} on grey", loss=loss)


def staged_trajectory() -> Trajectory:
    """Two rounds with every kind of step; a refused plan and a refused sketch among them."""
    steps: Sequence[Step] = (
        plan("a blue circle", loss=False),
        Inspection(target="plan", verdict="revise", critique="the circle is red"),
        Refinement(instruction="make it red"),
        plan("a red circle"),
        Inspection(target="plan", verdict="accept", critique="as asked"),
        sketch(1, 16, 8),
        Inspection(target="sketch", verdict="accept", critique="it is there"),
        plan("a star below"),
        sketch(2, 16, 8, loss=False),
        Inspection(target="sketch", verdict="revise", critique="no star"),
        Refinement(instruction="draw the star"),
        sketch(3, 16, 8),
        Inspection(target="sketch", verdict="accept", critique="both are there"),
        Stop(),
    )
    return Trajectory(prompt="a red circle above a star", steps=tuple(steps))


def one_shot_trajectory() -> Trajectory:
    return Trajectory(prompt="a star", steps=(sketch(4), Stop()))


def editing_trajectory() -> Trajectory:
    source = ImageRef.from_array(picture(5, 8, 12))
    return Trajectory(prompt="make it blue", inputs=(source,), steps=(sketch(6, 8, 12), Stop()))
