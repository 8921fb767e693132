"""AdamW over named parameters, and its learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from train.settings import Optimizer


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], settings: Optimizer
) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    groups = [
        {
            "params": [p for p in parameters.values() if p.ndim >= 2],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True
    )


def learning_rate(step: int, num_steps: int, settings: Optimizer) -> float:
    """The rate of step number `step`, counted from 0: linear warm-up, then cosine or constant."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(num_steps - settings.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return settings.lr * (settings.min_lr_ratio + (1 - settings.min_lr_ratio) * cosine)
