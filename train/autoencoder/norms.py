"""A group norm that is fast to train on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _GroupNorm(nn.GroupNorm):
    """Group norm through layer norm: torch's own CPU kernels take over half of a whole step."""

    def forward(self, x: Tensor) -> Tensor:
        groups = x.reshape(x.shape[0], self.num_groups, -1)
        normal = F.layer_norm(groups, groups.shape[-1:], eps=self.eps)
        channels = normal.view(x.shape[0], self.num_channels, -1)
        weight, bias = (p.to(x.dtype)[:, None] for p in (self.weight, self.bias))
        return torch.addcmul(bias, channels, weight).view_as(x)


def speed_up_norms(module: nn.Module) -> None:
    """Exchange a model's group norms for faster equal ones, in place, values kept."""
    for name, child in module.named_children():
        if type(child) is nn.GroupNorm:
            faster = _GroupNorm(child.num_groups, child.num_channels, eps=child.eps)
            faster.to(child.weight)
            faster.load_state_dict(child.state_dict())
            setattr(module, name, faster)
        else:
            speed_up_norms(child)
