"""The trajectory: a prompt and the ordered steps a model takes to answer it with an image.

It is the one type that everything passes around: pipelines write it, training reads it, the
loop emits it, evaluation scores it and the report draws it.

Legal orders (the published method's, and short forms of the same type):

    staged         prompt round+ stop
                   round := plan [inspect-plan [refine plan]]*
                            sketch [inspect-sketch [refine sketch]]*
    one-shot,      prompt [think] sketch [inspect-sketch [refine sketch]]* stop
    editing        (the same with input images; one round without a plan)
    understanding  prompt answer stop
    interleaved    prompt [think sketch [inspect-sketch [refine sketch]]*]+ [answer] stop

A refinement follows exactly the inspections whose verdict is "revise". A trajectory that cannot
be continued legally cannot be built; one that is not finished (a loop in progress, a rollout that
failed) is any prefix of these orders, and `validate()` says whether it is complete.
"""

from staged.trajectory.order import Move, TrajectoryError, moves
from staged.trajectory.steps import (
    MAX_TEXT_CHARS,
    Answer,
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Target,
    TextStep,
    Thought,
    Verdict,
    step_to_dict,
)
from staged.trajectory.value import (
    MAX_INPUTS,
    MAX_JSON_BYTES,
    MAX_PROVENANCE_ITEMS,
    MAX_STEPS,
    VERSION,
    Trajectory,
)

__all__ = [
    "MAX_INPUTS",
    "MAX_JSON_BYTES",
    "MAX_PROVENANCE_ITEMS",
    "MAX_STEPS",
    "MAX_TEXT_CHARS",
    "VERSION",
    "Answer",
    "ImageRef",
    "Inspection",
    "Move",
    "Plan",
    "Refinement",
    "Sketch",
    "Step",
    "Stop",
    "Target",
    "TextStep",
    "Thought",
    "Trajectory",
    "TrajectoryError",
    "Verdict",
    "moves",
    "step_to_dict",
]
