"""From names to players: who can play what, and the settings that go with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from staged.backends.bagel import BagelPlayer
from staged.backends.editing import EditingSketcher
from staged.devices import AUTO, DTYPES, choose_arithmetic
from staged.engine.engine import Engine
from staged.generate.settings import DrawSettings
from staged.loops.policy import Inspect, Player, Policy, Sketcher
from staged.loops.redrawing import RedrawingSketcher
from staged.loops.roles import Roles
from staged.loops.unbatched import Unbatched
from staged.model.codec import ImageSizes
from staged.model.open import open_checkpoint
from staged.model.quantizations import Quantization
from staged.ranges import check_choices
from staged.roles import BatchedSketcher
from staged.shapes.miniature import is_miniature
from staged.shapes.players.scripted import ScriptedInspector, ScriptedPlanner, ScriptedSketcher
from staged.shapes.world.scene import CANVAS_PX

if TYPE_CHECKING:  # openai takes seconds to import, and few ask a language model
    from staged.backends.lmm.asker import Asker
    from staged.backends.lmm.players import LmmInspector, LmmPlanner


@dataclass(frozen=True, kw_only=True)
class RoleChoice:
    """Who plays which role.

    Attributes:
        planner: `model`; `scripted`, the miniature world's own; or `lmm`, a language model. These
            two then also direct.
        inspector: `model`, or `scripted` or `lmm`, who then inspects every state and also refines.
        sketcher: `model` reads the whole trajectory; `editing` is the same model asked for
            one-shot images and edits, for one that was never taught to work in stages;
            `scripted` is the miniature world's editor.
        max_redraws: Times that a sketch is drawn again where the inspector refuses it, before it
            counts; see `staged.loops.redrawing`.
    """

    planner: Player = DrawSettings.planner
    inspector: Player = DrawSettings.inspector
    sketcher: Sketcher = DrawSettings.sketcher
    max_redraws: int = DrawSettings.max_redraws

    def __post_init__(self) -> None:
        """Check the names."""
        check_choices(self, planner=Player, inspector=Player, sketcher=Sketcher)

    def check_world(self, sizes: ImageSizes, name: str) -> None:
        """Make sure that scripted players are not put beside a model of another world.

        Args:
            sizes: Of the model.
            name: Its name.

        Raises:
            ValueError: they are.
        """
        scripted = [role for role, who in vars(self).items() if who == "scripted"]
        if scripted and not is_miniature(sizes):
            side = sizes.latent_max
            raise ValueError(
                f"{', '.join(scripted)} scripted: these players know the miniature world's shapes "
                f"at {CANVAS_PX} x {CANVAS_PX} pixels, and {name} draws {side} x {side}; let the "
                "model play"
            )

    def roles(self, player: BagelPlayer, name: str, asker: Asker | None = None) -> Roles:
        """Give the roles to a model and the other players.

        Args:
            player: The model.
            name: Its name, for provenance.
            asker: Of the language model, where one plays.

        Raises:
            ValueError: scripted players beside a model of another world.
        """
        self.check_world(player.engine.codec.sizes, name)
        roles = Roles.of(player, name)
        names = dict(roles.names)
        if self.sketcher != "model":
            sketchers: dict[str, BatchedSketcher] = {
                "editing": EditingSketcher(player),
                "scripted": ScriptedSketcher(),
            }
            roles = replace(roles, sketcher=sketchers[self.sketcher])
            names["sketcher"] = f"{name} ({self.sketcher})"
        if self.planner != "model":
            directing = self._directing(asker)
            roles = replace(roles, planner=directing, director=directing)
            named = _named(self.planner, asker)
            names |= {"planner": named, "director": named}
        if self.inspector != "model":
            inspecting = self._inspecting(asker)
            roles = replace(roles, inspector=inspecting, refiner=inspecting)
            named = _named(self.inspector, asker)
            names |= {"inspector": named, "refiner": named}
        if self.max_redraws:
            redrawing = RedrawingSketcher(
                roles.sketcher, roles.inspector, max_redraws=self.max_redraws
            )
            roles = replace(roles, sketcher=redrawing)
        return replace(roles, names=names)

    def _directing(self, asker: Asker | None) -> Unbatched | LmmPlanner:
        if self.planner == "lmm":
            from staged.backends.lmm.players import LmmPlanner

            assert asker is not None  # whoever chooses a language model names it
            return LmmPlanner(asker)
        planner = ScriptedPlanner()
        return Unbatched(director=planner, planner=planner)

    def _inspecting(self, asker: Asker | None) -> Unbatched | LmmInspector:
        if self.inspector == "lmm":
            from staged.backends.lmm.players import LmmInspector

            assert asker is not None
            return LmmInspector(asker)
        inspector = ScriptedInspector()
        return Unbatched(inspector=inspector, refiner=inspector)

    def policy(self, policy: Policy) -> Policy:
        """Let an inspector other than the model look at all that was written or drawn by others.

        A director other than the model asks for no inspections; it leaves them to that inspector.
        What is never to be inspected is not.
        """
        if self.inspector == "model":
            return policy
        written: Inspect = (
            "always" if self.planner == "model" and policy.mode == "staged" else "never"
        )
        return replace(
            policy,
            inspect_plan="never" if policy.inspect_plan == "never" else written,
            inspect_sketch="never" if policy.inspect_sketch == "never" else "always",
        )


def _named(player: Player, asker: Asker | None) -> str:
    return player if asker is None or player != "lmm" else f"lmm ({asker.name})"


def open_engine(
    checkpoint: str,
    *,
    device: str = AUTO,
    dtype: str = AUTO,
    seed: int = 0,
    lora: Path | None = None,
    quantization: Quantization = "none",
) -> Engine:
    """Load a checkpoint for generation.

    Args:
        checkpoint: See `staged.model.open.open_checkpoint`.
        device: Where the model runs; see `staged.devices.choose_arithmetic`.
        dtype: `auto`, `float32` or `bfloat16`; of the model, the autoencoder stays in float32.
        seed: Of `miniature:fresh`.
        lora: Folder of a LoRA to put upon it; see `staged.model.open.open_checkpoint`.
        quantization: To what weights of its experts are rounded; see `staged.model.quantized`.

    Raises:
        ValueError: there is no such checkpoint or device, it has no tokenizer, another dtype, or
            weights that cannot be rounded so.
    """
    if dtype not in (AUTO, *DTYPES):
        raise ValueError(f"dtype is {dtype!r}; give {AUTO} or one of {', '.join(DTYPES)}")
    chosen = choose_arithmetic(device, dtype)
    loaded = open_checkpoint(
        checkpoint,
        seed=seed,
        device=chosen.device,
        dtype=chosen.dtype,
        lora=lora,
        quantization=quantization,
    )
    if loaded.tokenizer is None:
        raise ValueError(f"{checkpoint} has no tokenizer files; nothing can be read or written")
    return Engine(loaded.model, loaded.codec, loaded.tokenizer, flows=loaded.flows)
