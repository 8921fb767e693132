"""A language model as one unit of work asks it."""

from typing import Final, TypeVar

from pydantic import BaseModel

from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.request import Failure, LmmRequest
from staged.jobs.results import Status, UnitResult

T = TypeVar("T", bound=BaseModel)

_MAX_DETAIL_CHARS: Final = 500


class UnitEndError(Exception):
    """A unit of work ends here.

    Args:
        status: Whether a filter ended it, or a service.
        stage: Of the pipeline.
        reason: Short and countable.
        detail: What is known of that; shortened.

    Attributes:
        result: How; its sample is added by whoever knows the steps so far.
    """

    def __init__(self, status: Status, stage: str, reason: str, detail: str = "") -> None:
        """Make the result."""
        super().__init__(f"{stage}: {reason}")
        detail = detail[:_MAX_DETAIL_CHARS]
        self.result = UnitResult(status=status, stage=stage, reason=reason, detail=detail)


class Asking:
    """Asks for one unit, and adds up what that costs.

    Args:
        lmm: The language model; it keeps its attempts itself.

    Attributes:
        usd: What was spent.
        requests: Answers that were used.
    """

    def __init__(self, lmm: LmmClient) -> None:
        """Begin with no costs."""
        self._lmm = lmm
        self.usd = 0.0
        self.requests = 0

    async def ask(self, request: LmmRequest[T]) -> T:
        """Ask the language model.

        Raises:
            UnitEndError: there is no answer.
        """
        reply = await self._lmm.ask(request)
        self.usd += reply.usd
        self.requests += 1
        if isinstance(reply, Failure):
            raise UnitEndError("failed", request.purpose, reply.kind, reply.detail)
        return reply.value
