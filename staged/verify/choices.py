"""What `staged verify` lets one choose; read without torch."""

from typing import Final

GROUPS: Final = ("vae", "vit", "train", "infer", "schedule", "positions", "resize")
"""Groups of comparisons, in order."""
TOLERANCE: Final = 1e-4
"""Largest error over the reference's largest magnitude, for float32."""
