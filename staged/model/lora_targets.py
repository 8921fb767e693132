"""What a LoRA can be added to; settings name it, and are read without torch."""

from typing import Literal

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Linear layers of an expert in a layer of the decoder: attention's four, and the MLP's three."""
