"""A language model as one unit of work asks it."""

from typing import TypeVar

from pydantic import BaseModel

from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.types import Failure, LmmRequest
from staged.jobs.records import UnitResult

T = TypeVar("T", bound=BaseModel)


class UnitEndError(Exception):
    """A unit of work ends here.

    Attributes:
        result: How; its sample is added by whoever knows the steps so far.
    """

    def __init__(self, result: UnitResult) -> None:
        """Keep the result."""
        super().__init__(f"{result.stage}: {result.reason}")
        self.result = result


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
            raise UnitEndError(
                UnitResult(
                    status="failed", stage=request.purpose, reason=reply.kind, detail=reply.detail
                )
            )
        return reply.value
