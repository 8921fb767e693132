"""The miniature suite: prompts with an exact meaning, a model that draws, a detector that scores.

`settings` says what is drawn, `draw` draws it once into shards, `score` judges the pixels as often
as one likes, `process` judges the steps that led to them (with `pictures`, `course` and `drift`),
`report` counts and writes.
"""

from eval.miniature.command import main

__all__ = ["main"]
