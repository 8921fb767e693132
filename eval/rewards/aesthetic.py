"""The LAION aesthetic predictor v2: a few linear layers on the image embedding of CLIP L/14.

Source: christophschuhmann/improved-aesthetic-predictor, `sac+logos+ava1-l14-linearMSE.pth`. It
learnt to predict ratings from 1 to 10; nothing keeps its output between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from torch import Tensor, nn

from eval.geneval.mask2former import fingerprint
from staged.model.stored_weights import load_tensors
from staged.model.weights import check_weights

WEIGHTS_FILE = "model.safetensors"
WIDTHS = (768, 1024, 128, 64, 16, 1)


class AestheticHead(nn.Module):
    """Linear layers one after the other, without activations between them.

    Args:
        widths: Of the input and after each layer; the last is 1.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))

    def forward(self, embedding: Tensor) -> Tensor:
        """Rate embeddings.

        Args:
            embedding: (…, dim) float32, of unit length.

        Returns:
            (…,) float32, about 1 to 10.
        """
        for layer in self.layers:
            embedding = layer(embedding)
        return embedding[..., 0]

    @property
    def name(self) -> str:
        """Return what a result says about the weights."""
        return f"aesthetic head, weights {fingerprint(self.state_dict())}"


def load_head(folder: Path) -> AestheticHead:
    """Read what `eval.converters.aesthetic` wrote.

    Raises:
        ValueError: the folder holds no such head.
    """
    path = folder / WEIGHTS_FILE
    missing = "; make it of the published .pth with `staged eval convert-reward aesthetic`"
    state = load_tensors(path, missing=missing)
    return head_of(state, str(path))


def head_of(state: Mapping[str, Tensor], place: str) -> AestheticHead:
    """Build the head whose weights these are.

    Raises:
        ValueError: they are not those of linear layers one after the other, or not finite.
    """
    rows = [state[key] for key in (f"layers.{i}.weight" for i in range(len(state))) if key in state]
    if not rows or any(row.dim() != 2 for row in rows):
        raise ValueError(f"{place}: {sorted(state)[:4]}; expected weights of linear layers")
    head = AestheticHead((rows[0].shape[1], *(row.shape[0] for row in rows)))
    weights = {key: value.float() for key, value in state.items()}
    check_weights(
        place, weights, {key: tuple(value.shape) for key, value in head.state_dict().items()}
    )
    head.load_state_dict(weights)
    return head.eval()
