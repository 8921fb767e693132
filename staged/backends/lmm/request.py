"""What is asked of a language model, and what comes back."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from staged.backends.lmm.outcomes import FailureKind

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class LmmRequest(Generic[T]):
    """One question to the model.

    Attributes:
        purpose: What it is for; counts and costs are kept by it.
        prompt_version: Version of `instructions`; part of the cache key.
        instructions: The system message.
        content: The user message: text, and encoded images as bytes, in order.
        answer: The pydantic model that the answer must fit.
        seed: Sent to the endpoint; two requests that differ only in it are two requests.
        top_logprobs: Ask for one token in plain text, and for the log probabilities of as many
            that it could be; `answer` is `FirstToken` then. None for a whole answer.
    """

    purpose: str
    prompt_version: str
    instructions: str
    content: tuple[str | bytes, ...]
    answer: type[T]
    seed: int = 0
    top_logprobs: int | None = None


class FirstToken(BaseModel):
    """What the first token of an answer can be, and how probable that is.

    Attributes:
        log_probs: Text of a token and natural logarithm of its probability: no more of them than
            the endpoint gave, so the rest of the probability is on tokens that are not named.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    log_probs: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Reply(Generic[T]):
    """An answer that fits its schema.

    Attributes:
        value: The answer.
        key: The request's key.
        usd: Price of all attempts it took, whoever paid for them first.
    """

    value: T
    key: str
    usd: float


@dataclass(frozen=True, kw_only=True)
class Failure:
    """No answer, for a reason.

    Attributes:
        kind: The reason.
        detail: What is known of it.
        key: The request's key.
        usd: Price of all attempts.
    """

    kind: FailureKind
    detail: str
    key: str
    usd: float
