"""Text-to-image generation in stages: plan, sketch, inspect, refine.

Importing this package imports no torch, so that data work starts fast; the parts that need it
(``staged.model``, ``staged.engine``) import it themselves.
"""

__version__ = "0.1.0"
