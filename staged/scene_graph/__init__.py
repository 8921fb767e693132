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
from staged.scene_graph.paths import (
    VARIATIONS,
    Variation,
    Vocabulary,
    entering,
    increments,
    varied_path,
)
from staged.scene_graph.question import (
    NUMBER,
    Question,
    count_questions,
    questions,
    resolve,
    rest_questions,
    the,
)

__all__ = [
    "NUMBER",
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
    "count_questions",
    "delta",
    "entering",
    "increments",
    "questions",
    "resolve",
    "rest_questions",
    "the",
    "varied_path",
]
