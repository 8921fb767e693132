"""A model behind an OpenAI-compatible endpoint: the most probable first tokens only.

An endpoint names tokens by their text and no more of them than it is asked for (hosted ones stop
at 20; vLLM takes `--max-logprobs`). So a token counts when its text is an accepted answer, and
what lies on tokens that are not named is unknown: the probability is what was seen, and `at_most`
what it can be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from eval.vqa.question import VqaAnswer, VqaQuestion
from staged import images
from staged.backends.lmm.asker import ask_each
from staged.backends.lmm.attempts import AttemptLog
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.request import Failure, FirstToken, LmmRequest
from staged.backends.lmm.settings import LmmSettings

MAX_TOP_LOGPROBS = 1000
PROMPT_VERSION = "1"


class ServerAnswerer:
    """Asks a server, many questions at a time.

    Args:
        settings: Where it is and how it is asked.
        log: Where answers are kept; what lies there is not asked again.
        purpose: What the questions are for, in the log.
        top_logprobs: Tokens to be named for each answer.

    Raises:
        ValueError: `top_logprobs` is not in [1, 1000].
    """

    def __init__(
        self, settings: LmmSettings, log: AttemptLog, *, purpose: str, top_logprobs: int = 20
    ) -> None:
        """Keep the settings; nothing is sent yet."""
        if not 1 <= top_logprobs <= MAX_TOP_LOGPROBS:
            raise ValueError(f"top_logprobs is {top_logprobs}; expected 1 to {MAX_TOP_LOGPROBS}")
        self.settings, self.log, self.purpose = settings, log, purpose
        self.top_logprobs = top_logprobs
        self.name = f"{settings.model}, first token by text, top {top_logprobs}"

    def answer(
        self, questions: Sequence[VqaQuestion], keep: Callable[[int, VqaAnswer], None]
    ) -> None:
        """Ask all; see `Answerer`.

        Raises:
            BudgetError: the log's budget is spent; what was in flight is kept.
        """

        async def ask(client: LmmClient, numbered: tuple[int, VqaQuestion]) -> None:
            index, question = numbered
            keep(index, await self._ask(client, question))

        ask_each(self.settings, self.log, enumerate(questions), ask)

    async def _ask(self, client: LmmClient, question: VqaQuestion) -> VqaAnswer:
        try:
            image = images.read_file(question.image)
            images.decode(image)
        except ValueError as error:
            return VqaAnswer(probability=None, reason="broken image", detail=str(error)[:500])
        request = LmmRequest(
            purpose=self.purpose,
            prompt_version=PROMPT_VERSION,
            instructions="",
            content=(image, question.text),
            answer=FirstToken,
            top_logprobs=self.top_logprobs,
        )
        reply = await client.ask(request)
        if isinstance(reply, Failure):
            return VqaAnswer(probability=None, reason=reply.kind, detail=reply.detail[:500])
        return read_first_token(reply.value, question.accepted)


def read_first_token(first: FirstToken, accepted: Sequence[str]) -> VqaAnswer:
    """Add up the probabilities of the accepted answers among the named tokens.

    Each accepted answer that is not named has at most the probability of the last one that is,
    and all of them together at most what the named ones leave.
    """
    named = [(text, math.exp(log_prob)) for text, log_prob in first.log_probs]
    seen = math.fsum(p for text, p in named if text in accepted)
    num_missing = len(set(accepted) - {text for text, _ in named})
    left = max(1 - math.fsum(p for _, p in named), 0.0)
    hidden = min(left, num_missing * min(p for _, p in named))
    return VqaAnswer(probability=min(seen, 1.0), at_most=min(seen + hidden, 1.0))
