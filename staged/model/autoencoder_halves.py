"""The two halves of FLUX's autoencoder, under the names of its file ``ae.safetensors``.

diffusers has the same network (``AutoencoderKL``, against which this one is tested). It is written
here because importing that one takes longer than all else that a command does before its first
picture, and because these names are the published ones, so that nothing is renamed at load.

b: images.  c: channels, by level.  h, w: height and width, by level.
"""

from collections import OrderedDict
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from staged.model.config import AutoencoderConfig

_GROUPS = 32
_EPS = 1e-6


class LatentEncoder(nn.Module):
    """Images to mean and log-variance of latents, side by side in the channels."""

    def __init__(self, config: AutoencoderConfig) -> None:
        """Build; a level halves the sides, save the last."""
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        self.conv_in = _conv(3, config.channels)
        self.down = nn.Sequential()
        for before, width in zip([config.channels, *widths[:-1]], widths, strict=True):
            last = len(self.down) == len(widths) - 1
            halving = {} if last else {"downsample": _Downsample(width)}
            self.down.append(_level(before, width, config.num_blocks, halving))
        self.mid = _Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = _conv(widths[-1], 2 * config.latent_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Encode (b, 3, h, w) to (b, 2 c, h / f, w / f)."""
        x = self.mid(self.down(self.conv_in(images)))
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class LatentDecoder(nn.Module):
    """Latents, neither scaled nor shifted, to images."""

    def __init__(self, config: AutoencoderConfig) -> None:
        """Build; levels are numbered from the image inwards, and a level doubles the sides."""
        super().__init__()
        widths = [config.channels * multiplier for multiplier in config.multipliers]
        self.conv_in = _conv(config.latent_channels, widths[-1])
        self.mid = _Middle(widths[-1])
        self.up = nn.ModuleList()
        for before, width in zip([*widths[1:], widths[-1]], widths, strict=True):
            doubling = {"upsample": _Upsample(width)} if len(self.up) else {}
            self.up.append(_level(before, width, config.num_blocks + 1, doubling))
        self.norm_out = _norm(widths[0])
        self.conv_out = _conv(widths[0], 3)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode (b, c, h / f, w / f) to (b, 3, h, w)."""
        x = self.mid(self.conv_in(latents))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(F.silu(self.norm_out(x)))
        return out


class _Block(nn.Module):
    """A residual block of two convolutions; the way round is a product where the width changes."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.norm1 = _norm(before)
        self.conv1 = _conv(before, width)
        self.norm2 = _norm(width)
        self.conv2 = _conv(width, width)
        self.nin_shortcut = nn.Identity() if before == width else nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = self.nin_shortcut(x) + y
        return out


class _Attention(nn.Module):
    """Attention of one head over all places of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        # (b, c, h, w) to one head: (b, 1, h w, c). The kernels that keep no (h w)^2 scores want
        # channels side by side.
        q, k, v = (
            part(normed).flatten(2).transpose(1, 2).contiguous().unsqueeze(1)
            for part in (self.q, self.k, self.v)
        )
        seen = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        out: Tensor = x + self.proj_out(seen.reshape(x.shape))
        return out


class _Middle(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = _Block(width, width)
        self.attn_1 = _Attention(width)
        self.block_2 = _Block(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class _Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        # On the right and below alone: so FLUX was trained.
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return out


class _Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


def _level(before: int, width: int, count: int, resize: Mapping[str, nn.Module]) -> nn.Sequential:
    blocks = nn.Sequential(*(_Block(width if n else before, width) for n in range(count)))
    return nn.Sequential(OrderedDict(block=blocks, **resize))


def _conv(before: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(before, width, 3, padding=1)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width, eps=_EPS)
