"""How the language model of a job is opened."""

from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.ledger import LedgerLog
from staged.backends.lmm.settings import LmmSettings
from staged.jobs.ledger import Ledger
from staged.shapes.players import lmm as shapes_lmm
from staged.shapes.players.misbehaviour import Misbehaviour


def open_lmm(settings: LmmSettings | None, misbehaviour: Misbehaviour, ledger: Ledger) -> LmmClient:
    """Open the language model; without settings the miniature world's, in this process."""
    if settings is not None:
        return LmmClient(settings, log=LedgerLog(ledger))
    return shapes_lmm.connect(misbehaviour=misbehaviour, log=LedgerLog(ledger))
