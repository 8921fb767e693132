"""What weights may be rounded to as they are read; settings name it, and need no torch."""

from typing import Literal

Quantization = Literal["none", "int8", "float8"]
"""See `staged.model.quantized`."""
