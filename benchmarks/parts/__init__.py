"""The sections of `gpu.py` and what they share; a section is a module with `run`."""
