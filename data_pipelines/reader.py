"""The language model of a job: how it is opened, and that it is of the same world as all else."""

from data_pipelines.drawing import DrawingSettings
from data_pipelines.prompts import Prompts
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.ledger import LedgerLog
from staged.backends.lmm.types import LmmSettings
from staged.jobs.ledger import Ledger
from staged.shapes.players import lmm as shapes_lmm
from staged.shapes.players.misbehaviour import SHAPES_LMM, Misbehaviour


def check_worlds(
    *,
    lmm: LmmSettings | None,
    drawing: DrawingSettings,
    prompts: Prompts,
    misbehaviour: Misbehaviour,
) -> None:
    """Check that language model, editor and prompts are all of the miniature world, or none.

    Raises:
        ValueError: They are not; names the setting.
    """
    shapes_only = lmm is None or lmm.model == SHAPES_LMM
    if drawing.editor is not None and shapes_only:
        raise ValueError(
            f"lmm: the miniature world's language model knows shapes only, and "
            f"{drawing.editor.model} draws; name the model that reads, plans and judges "
            "(lmm.model, lmm.base_url)"
        )
    if lmm is None or shapes_only:
        return
    if drawing.editor is None:
        raise ValueError(
            f"drawing.editor: {lmm.model} plans, and the miniature world's editor draws shapes "
            "only; name an editor ({} takes FLUX.1 Kontext)"
        )
    if misbehaviour != Misbehaviour():
        raise ValueError(
            "misbehaviour is the miniature world's language model's; leave it out where another "
            f"one is asked ({lmm.model})"
        )
    if prompts.file is None:
        raise ValueError(
            "prompts.file: sampled prompts are for the miniature world; give a file of prompts for "
            "another language model"
        )


def open_lmm(settings: LmmSettings | None, misbehaviour: Misbehaviour, ledger: Ledger) -> LmmClient:
    """Open the language model; without settings the miniature world's, in this process."""
    if settings is not None:
        return LmmClient(settings, log=LedgerLog(ledger))
    return shapes_lmm.connect(misbehaviour=misbehaviour, log=LedgerLog(ledger))
