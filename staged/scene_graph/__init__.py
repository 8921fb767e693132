"""What a prompt asks for as a graph, how it grows step by step, and how steps are checked."""

from staged.scene_graph.edits import (
    AddObject,
    ChangeAttribute,
    Delta,
    GraphEdit,
    Relate,
    RemoveObject,
    ReplaceObject,
    SwapObjects,
    apply,
    delta,
)
from staged.scene_graph.graph import Attribute, Relation, SceneGraph, SceneObject
from staged.scene_graph.paths import VARIATIONS, Variation, Vocabulary, increments, varied_path
from staged.scene_graph.question import Question, questions, resolve

__all__ = [
    "VARIATIONS",
    "AddObject",
    "Attribute",
    "ChangeAttribute",
    "Delta",
    "GraphEdit",
    "Question",
    "Relate",
    "Relation",
    "RemoveObject",
    "ReplaceObject",
    "SceneGraph",
    "SceneObject",
    "SwapObjects",
    "Variation",
    "Vocabulary",
    "apply",
    "delta",
    "increments",
    "questions",
    "resolve",
    "varied_path",
]
