"""What a prompt asks for as a graph, how it grows step by step, and how steps are checked."""

from staged.scene_graph.edits import (
    Add,
    Change,
    Delta,
    Edit,
    Exchange,
    Relate,
    Remove,
    Swap,
    apply,
    delta,
)
from staged.scene_graph.graph import Attribute, Relation, SceneGraph, SceneObject
from staged.scene_graph.paths import VARIATIONS, Variation, Vocabulary, increments, varied_path
from staged.scene_graph.question import Question, questions, resolve

__all__ = [
    "VARIATIONS",
    "Add",
    "Attribute",
    "Change",
    "Delta",
    "Edit",
    "Exchange",
    "Question",
    "Relate",
    "Relation",
    "Remove",
    "SceneGraph",
    "SceneObject",
    "Swap",
    "Variation",
    "Vocabulary",
    "apply",
    "delta",
    "increments",
    "questions",
    "resolve",
    "varied_path",
]
