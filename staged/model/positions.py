"""Position tables, time sinusoids and flattened grid positions, as plain functions.

d: embedding width.  side: patches on a table's side.  n: tokens.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "extrapolated_position_ids",
    "interpolated_position_ids",
    "sincos_table",
    "time_sinusoids",
]


def sincos_table(dim: int, side: int) -> Tensor:
    """The frozen 2-D sine-cosine table of a square grid.

    The first half of a row encodes the column (width first), the second half the row; each half
    holds all sines, then all cosines. Computed in float64, as MAE's code does.

    Args:
        dim: d, a multiple of 4.
        side: Grid side, in patches.

    Returns:
        (side * side, d) float32 on the CPU; row ``r * side + c`` belongs to grid cell (r, c).

    Raises:
        ValueError: ``dim`` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"sine-cosine width {dim} is not a multiple of 4")
    rows, columns = np.divmod(np.arange(side * side, dtype=np.float64), side)
    table = np.concatenate([_sincos(columns, dim // 2), _sincos(rows, dim // 2)], axis=1)
    return torch.from_numpy(table).float()


def _sincos(positions: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    frequencies = 10000.0 ** -(np.arange(dim // 2, dtype=np.float64) / (dim / 2.0))
    angles = positions[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def time_sinusoids(timestep: Tensor, dim: int = 256, max_period: float = 10000.0) -> Tensor:
    """Sinusoids of the flow time, cosines first.

    The time itself is used, not a multiple of it: BAGEL feeds values in [0, 1].

    Args:
        timestep: (n,) real, in [0, 1]; 1 is noise.
        dim: Even width of the result.
        max_period: Longest period, in the timestep's unit.

    Returns:
        (n, dim) float32.
    """
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    angles = timestep.float()[:, None] * torch.exp(-np.log(max_period) * exponent)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def extrapolated_position_ids(rows: int, columns: int, side: int) -> Tensor:
    """Positions of a grid that lies in the upper left corner of the table.

    Args:
        rows: Grid height, in patches; at most ``side``.
        columns: Grid width, in patches; at most ``side``.
        side: Table side, in patches.

    Returns:
        (rows * columns,) int64 table rows, row by row.

    Raises:
        ValueError: The grid does not fit the table.
    """
    if not (1 <= rows <= side and 1 <= columns <= side):
        raise ValueError(
            f"a grid of {rows} x {columns} patches does not fit the {side} x {side} position "
            "table; resize the image"
        )
    return (torch.arange(rows)[:, None] * side + torch.arange(columns)).flatten()


def interpolated_position_ids(rows: int, columns: int, side: int) -> Tensor:
    """Positions of a grid stretched over the whole table.

    Each patch takes the table cell that holds its upper left corner, in fractions of the side.

    Args:
        rows: Grid height, in patches.
        columns: Grid width, in patches.
        side: Table side, in patches.

    Returns:
        (rows * columns,) int64 table rows, row by row.
    """
    # Float32 boundaries and fractions on purpose: ties between them fall as in the reference.
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    row_cells = torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / rows), boundaries, right=True)
    column_cells = torch.bucketize(torch.arange(0, 1 - 1e-6, 1 / columns), boundaries, right=True)
    return (row_cells[:, None] * side + column_cells).flatten()
