"""What the judge of a drawing is asked: everything once, and the look where it can be seen."""

import asyncio
import json
from typing import Any

from data_pipelines.plan_sketch.gate import objection
from data_pipelines.plan_sketch.settings import Gate
from data_pipelines.wording import Wording
from staged.scene_graph import Relation, SceneGraph, SceneObject, delta

LOOK = {"style": "gouache", "setting": "a kitchen"}
BOWL = SceneGraph([SceneObject(id="o0", class_name="bowl")])
APPLES = SceneGraph(
    [*BOWL.objects, *(SceneObject(id=f"o{n}", class_name="apple") for n in (1, 2, 3))],
    relations=[Relation(source=f"o{n}", name="in", target="o0") for n in (1, 2, 3)],
)


class Judge:
    """Says yes to everything but some words, and keeps what it was asked."""

    def __init__(self, refused: str = "nothing") -> None:
        self.refused = refused
        self.texts: list[str] = []

    async def ask(self, request: Any) -> Any:
        questions = json.loads(request.content[0])["questions"]
        self.texts = [question["question"] for question in questions]
        answers = [
            {
                "id": question["id"],
                "seen": "seen",
                "grade": 1 if self.refused in question["question"] else 5,
            }
            for question in questions
        ]
        said = {"answers": answers, "extras": [], "kept": 5, "quality": 5}
        return request.answer.model_validate(said)


def judged(judge: Judge, before: SceneGraph, after: SceneGraph, *, whole: bool = False) -> str:
    """The reason why a drawing does not pass; empty where it does."""
    found = asyncio.run(
        objection(
            judge,  # type: ignore[arg-type]
            Wording(),
            Gate(),
            delta(before, after),
            b"before" if before.objects else None,
            b"after",
            whole=whole,
            seed=0,
            look=LOOK,
        )
    )
    return found.reason if found else ""


def test_what_is_said_of_several_alike_is_asked_once_and_counts_for_each() -> None:
    judge = Judge()
    assert not judged(judge, BOWL, APPLES)
    assert len(set(judge.texts)) == len(judge.texts)
    assert sum("in the bowl" in text for text in judge.texts) == 1
    assert judged(Judge("in the bowl"), BOWL, APPLES) == "relation not as planned"
    assert judged(Judge("Is there exactly 1 bowl"), BOWL, APPLES) == "number not as planned"


def test_the_look_is_asked_of_a_first_image_and_where_everything_is() -> None:
    for before, whole, asked in ((SceneGraph(), False, 2), (BOWL, True, 2), (BOWL, False, 0)):
        judge = Judge()
        assert not judged(judge, before, APPLES, whole=whole)
        assert sum(said in text for text in judge.texts for said in LOOK.values()) == asked
    assert judged(Judge("gouache"), SceneGraph(), BOWL) == "look not as planned"
