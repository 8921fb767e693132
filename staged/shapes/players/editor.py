"""The miniature world's image editor: reads a scene from pixels, edits it, draws it again."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from staged.ranges import check_rates
from staged.roles import Pixels, RoleError
from staged.scene_graph import SceneGraph
from staged.shapes.language import instructions as say
from staged.shapes.language.phrases import GrammarError
from staged.shapes.language.prompts import read_prompt
from staged.shapes.players.arrange import Arranger, NoWayError
from staged.shapes.sight.detect import scene_from
from staged.shapes.world.render import render
from staged.shapes.world.scene import CANVAS_PX, COLORS, KINDS, Color, Scene, sample_background
from staged.shapes.world.spec import INVERSE, Thing
from staged.shapes.world.splits import held_out_pair

FORESIGHT = ". Leave room for the rest of: "
"""What stands between an instruction and the prompt that it is a step of."""


@dataclass(frozen=True, kw_only=True)
class EditorMistakes:
    """How often the miniature editor draws something else than it was told: rates in [0, 1].

    One mistake at most in a step, decided by the step's seed.
    """

    wrong_side: float = 0.01
    """The opposite relation."""
    wrong_color: float = 0.01
    """Another colour."""
    wrong_kind: float = 0.01
    """Another class."""
    lost_object: float = 0.01
    """Something that was there before is gone."""

    def __post_init__(self) -> None:
        """Check the rates."""
        check_rates(self, *(field.name for field in fields(self)))


NO_MISTAKES = EditorMistakes(wrong_side=0, wrong_color=0, wrong_kind=0, lost_object=0)
"""It does what it is told."""


@dataclass(frozen=True, kw_only=True)
class ShapesEditor:
    """Plays `ImageEditor` in the miniature world.

    Attributes:
        mistakes: How often it gets it wrong.
    """

    mistakes: EditorMistakes = EditorMistakes()

    @property
    def name(self) -> str:
        """What to write into provenance."""
        return "shapes-editor-1"

    @property
    def licence(self) -> str:
        """The terms that its outputs carry: the project's."""
        return "Apache-2.0"

    def edit(
        self, image: Pixels | None, instruction: str, *, width: int, height: int, seed: int
    ) -> Pixels:
        """Draw an instruction of a plan or a refinement, onto an image or from nothing.

        The words after `FORESIGHT`, if any, say what the picture is to become; room is left for it.

        Args:
            image: (48, 48, 3) uint8 RGB, or None for a first step.
            instruction: In the miniature world's language.
            width: 48.
            height: 48.
            seed: Of every choice that the instruction leaves open, and of the mistake.

        Raises:
            ValueError: another size.
            RoleError: the instruction is not understood, or cannot be carried out.
        """
        if (width, height) != (CANVAS_PX, CANVAS_PX):
            raise ValueError(f"{width} x {height}: this editor draws {CANVAS_PX} x {CANVAS_PX}")
        rng = np.random.default_rng(seed)
        text, _, prompt = instruction.partition(FORESIGHT)
        mistake = self._mistake(rng)
        edits = [_mistaken(edit, mistake, rng) for edit in _read(text)]
        before = (
            Scene(shapes=(), background=sample_background(rng))
            if image is None
            else scene_from(image)
        )
        arranger, scene = Arranger(rng=rng, goal=_goal(prompt)), before
        try:
            for edit in edits:
                scene = arranger.apply(scene, edit)
        except NoWayError as error:
            raise RoleError(error.reason, str(error)) from None
        if mistake == "lost_object":
            scene = _lost(scene, before, rng)
        return render(scene)

    def _mistake(self, rng: np.random.Generator) -> str | None:
        draw = rng.random()
        for field in fields(self.mistakes):
            draw -= getattr(self.mistakes, field.name)
            if draw < 0:
                return field.name
        return None


def _read(text: str) -> tuple[say.Edit, ...]:
    try:
        return say.read_edits(text, voice="plan")
    except GrammarError:
        pass
    try:
        return say.read_edits(text, voice="refinement")
    except GrammarError as error:
        raise RoleError("not understood", str(error)) from None


def _goal(prompt: str) -> SceneGraph | None:
    """Read the prompt; in other words than ours it helps nobody."""
    try:
        return read_prompt(prompt).spec.to_graph()
    except GrammarError:
        return None


def _mistaken(edit: say.Edit, mistake: str | None, rng: np.random.Generator) -> say.Edit:
    """Turn an edit into a mistaken one, where it can be."""
    match mistake, edit:
        case "wrong_side", say.Add(relations=((relation, ref), *rest)):
            return replace(edit, relations=((INVERSE[relation], ref), *rest))
        case "wrong_side", say.Move(to=(relation, ref)):
            return replace(edit, to=(INVERSE[relation], ref))
        case "wrong_color", say.Add(thing=Thing(color=str()) as thing):
            return replace(edit, thing=replace(thing, color=_other_color(thing, rng)))
        case "wrong_color", say.Change(target=ref, value=value) if value in COLORS:
            looks = Thing(kind=ref.thing.kind, color=next(c for c in COLORS if c == value))
            return replace(edit, value=_other_color(looks, rng))
        case "wrong_kind", say.Add(thing=thing) | say.Replace(thing=thing):
            usable = [
                kind
                for kind in KINDS
                if kind != thing.kind and not (thing.color and held_out_pair(thing.color, kind))
            ]
            kind = usable[int(rng.integers(len(usable)))]
            return replace(edit, thing=replace(thing, kind=kind))
        case _:
            return edit


def _other_color(thing: Thing, rng: np.random.Generator) -> Color:
    usable = [c for c in COLORS if c != thing.color and not held_out_pair(c, thing.kind)]
    return usable[int(rng.integers(len(usable)))]


def _lost(scene: Scene, before: Scene, rng: np.random.Generator) -> Scene:
    """Lose one of the shapes that were there and are still."""
    old = [i for i, shape in enumerate(scene.shapes) if shape in before.shapes]
    if not old:
        return scene
    gone = old[int(rng.integers(len(old)))]
    return replace(scene, shapes=scene.shapes[:gone] + scene.shapes[gone + 1 :])
