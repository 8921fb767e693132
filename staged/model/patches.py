"""Square patches of images and of latents, flattened in BAGEL's order."""

from einops import rearrange
from torch import Tensor

__all__ = ["patchify", "unpatchify"]


def patchify(image: Tensor, patch_size: int) -> Tensor:
    """Cut images or latents into flattened patches, row by row.

    Args:
        image: (..., c, height, width); both sides multiples of ``patch_size``.
        patch_size: Side p of a patch.

    Returns:
        (..., n, p * p * c), each patch in (row, column, channel) order.

    Raises:
        ValueError: A side is not a multiple of the patch.
    """
    height, width = image.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"{width} x {height} (width x height) does not divide into patches of {patch_size}; "
            "resize the image with fit_size"
        )
    return rearrange(image, "... c (h p) (w q) -> ... (h w) (p q c)", p=patch_size, q=patch_size)


def unpatchify(patches: Tensor, rows: int, columns: int, patch_size: int) -> Tensor:
    """Undo ``patchify``.

    Args:
        patches: (..., rows * columns, p * p * c).
        rows: Patches down.
        columns: Patches across.
        patch_size: Side p of a patch.

    Returns:
        (..., c, rows * p, columns * p).

    Raises:
        ValueError: The patches are not ``rows * columns`` many.
    """
    if patches.shape[-2] != rows * columns:
        raise ValueError(f"{patches.shape[-2]} patches do not fill a grid of {rows} x {columns}")
    return rearrange(
        patches,
        "... (h w) (p q c) -> ... c (h p) (w q)",
        h=rows,
        w=columns,
        p=patch_size,
        q=patch_size,
    )
