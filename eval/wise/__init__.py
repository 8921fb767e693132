"""WISE (Niu et al. 2025, arXiv 2503.07265): knowledge of the world in pictures.

There are two incompatible benchmarks of this name: `legacy`, of 2025, and `verified`, of April
2026. About half of the prompts, their order, the judge, its scale and the weights differ, so every
number carries the version that it belongs to. `judgements` reads what a judge said, `summary`
makes a result of it.
"""
