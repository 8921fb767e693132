"""What is asked of a language model, what may come back, and the settings of the asking."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from staged.ranges import check_range

FailureKind = Literal[
    "refusal",
    "content_filter",
    "truncated",
    "invalid_output",
    "rate_limit",
    "timeout",
    "connection",
    "server_error",
    "bad_request",
    "unsupported",
]
"""Why there is no answer. The first four were answered, and paid for; the last one is a field of
the request that the endpoint does not take, and that is then left out."""

PAID: frozenset[FailureKind] = frozenset(
    ("refusal", "content_filter", "truncated", "invalid_output")
)
UNANSWERED: frozenset[FailureKind] = frozenset(
    ("rate_limit", "timeout", "connection", "server_error")
)
"""Nothing came back, or a word that it would not now."""
RETRIED: frozenset[FailureKind] = UNANSWERED | {"invalid_output", "unsupported"}
"""Another attempt may end differently; the others would be answered the same way again."""

StructuredOutput = Literal["json_schema", "json_object", "text"]
"""How an answer is made to fit its schema: by the endpoint, or by words in the instructions, with
the endpoint seeing to it that it is JSON or not even that."""

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """How requests that can wait are gathered into batches (OpenAI's `files` and `batches`)."""

    price: float = 0.5
    """What a token costs in a batch, as a share of its price."""
    gather_s: float = 60.0
    """How long a batch waits for further requests, from its first one on."""
    max_requests: int = 50_000
    """Most requests of a batch."""
    max_mib: int = 150
    """Largest file of a batch; images are in it."""
    poll_s: float = 60.0
    """Time between two looks at a batch."""
    window: str = "24h"
    """Time that the endpoint has; what it has not answered by then is sent again."""
    timeout_s: float = 900.0
    """Longest wait for a file to be sent or fetched."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "price", minimum=0, maximum=1)
        check_range(self, "max_requests", "max_mib", minimum=1)
        check_range(self, "gather_s", "poll_s", minimum=0)
        check_range(self, "timeout_s", minimum=0, above=True)


@dataclass(frozen=True, kw_only=True)
class LmmSettings:
    """Where a language model is, how it is asked, and what it costs."""

    model: str
    """Name of the model at the endpoint."""
    base_url: str = "https://api.openai.com/v1"
    """Address of the endpoint, up to and with its `/v1`."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; null for an endpoint without one."""
    temperature: float | Literal["auto"] | None = "auto"
    """Sampling temperature; null leaves it to the endpoint, auto is 0 where the model takes it."""
    structured_output: StructuredOutput | Literal["auto"] = "auto"
    """How answers are made to fit: auto is the first that the endpoint knows."""
    max_output_tokens: int = 2048
    """Longest answer; a longer one is a truncation, which is a failure."""
    max_side_px: int = 1024
    """Images are scaled down until no side is longer."""
    timeout_s: float = 120.0
    """Longest wait for one attempt."""
    max_attempts: int = 6
    """Attempts per request, the first included."""
    backoff_s: float = 1.0
    """Wait before the second attempt; doubled for each further one, with jitter."""
    max_backoff_s: float = 60.0
    """Longest wait between attempts, also where Retry-After asks for more."""
    concurrency: int = 32
    """Most requests in flight."""
    requests_per_minute: float | None = None
    """Quota of requests, retries included; null for none."""
    tokens_per_minute: float | None = None
    """Quota of input and output tokens; null for none."""
    usd_per_million_input_tokens: float = 0.0
    """Price of what is sent."""
    usd_per_million_output_tokens: float = 0.0
    """Price of what is answered."""
    tokens_per_image: int = 1500
    """Most tokens that an image is charged as, to hold the budget: GPT-4o charges 1,445 for its
    largest, GPT-4o mini some 25,000 for a square one, Qwen3-VL one for 32 x 32 pixels."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Further fields of every request, such as `chat_template_kwargs` for vLLM."""
    batch: BatchSettings | None = None
    """Ask by batches, which take up to a day and cost half; null asks at once. The concurrency
    above is for what is asked at once, the job's decides how many requests a batch can have."""

    def __post_init__(self) -> None:
        """Check ranges."""
        counts = ("max_output_tokens", "max_side_px", "max_attempts", "concurrency")
        check_range(self, *counts, minimum=1)
        rates = ("timeout_s", "requests_per_minute", "tokens_per_minute")
        check_range(self, *rates, minimum=0, above=True)
        prices = ("usd_per_million_input_tokens", "usd_per_million_output_tokens")
        check_range(self, "backoff_s", "max_backoff_s", *prices, minimum=0)
        check_range(self, "tokens_per_image", minimum=0)
        if not isinstance(self.temperature, str):
            check_range(self, "temperature", minimum=0, maximum=100)


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
class CallAttempt:
    """One call that was made, as the log keeps it.

    Attributes:
        outcome: `ok`, or why it failed.
        text: The answer's text; for a failure what is known of it, shortened.
        input_tokens: As the endpoint counted.
        output_tokens: As the endpoint counted.
        usd: Price by the settings.
    """

    outcome: Literal["ok"] | FailureKind
    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float = 0.0

    @property
    def paid(self) -> bool:
        """Whether an answer came back: such an attempt is never repeated."""
        return self.outcome == "ok" or self.outcome in PAID


@dataclass(frozen=True, kw_only=True)
class SentBatch:
    """A batch with a request that has no answer yet.

    Attributes:
        name: What we call it.
        number: What the endpoint calls it; None where that is not known, and it may not be there.
        price: What a token costs in it, as a share of its price; None where it is not known.
    """

    name: str
    number: str | None
    price: float | None = None


class AttemptLog(Protocol):
    """Where attempts are kept: in memory here, in a ledger for jobs."""

    def claim(self, key: str) -> AbstractAsyncContextManager[None]:
        """Let nobody else who keeps attempts here send a request meanwhile."""

    def admit(self, purpose: str, *, usd: float = 0.0, key: str | None = None) -> None:
        """Allow one more attempt, or raise what stops the job (a budget that is used up).

        Args:
            purpose: What it is for.
            usd: The most that it can cost.
            key: Of the request, where it is to go in a batch.
        """

    def held(self, key: str) -> float | None:
        """Return what the newest attempt was admitted with, where it was to go in a batch.

        None where it was not, and once the attempt is recorded or withdrawn.
        """

    def withdraw(self, usd: float, *, key: str | None = None) -> None:
        """Take back an attempt that was admitted, with these, and never sent."""

    def free(self, usd: float) -> None:
        """Give back what an attempt was admitted with that nothing can have been paid for."""

    def attempts(self, key: str) -> Sequence[CallAttempt]:
        """Return the attempts made for a request, in order."""

    async def record(
        self, key: str, purpose: str, attempt: CallAttempt, *, reserved_usd: float = 0.0
    ) -> None:
        """Keep an attempt, which was admitted with so much; durable when it returns."""

    def sent(self, key: str) -> Sequence[SentBatch]:
        """Return the batches that may hold the newest attempt; those that are known for sure first.

        None once the attempt is recorded.
        """

    async def sending(self, name: str, keys: Sequence[str], *, price: float) -> None:
        """Keep that requests are going to be sent as a batch; durable when it returns.

        Args:
            name: What we call it.
            keys: Of the requests, claimed.
            price: What a token costs in it, as a share of its price.
        """

    async def sent_as(self, name: str, number: str) -> None:
        """Keep what the endpoint calls a batch; durable when it returns."""


class MemoryLog:
    """An attempt log that lasts as long as the process."""

    def __init__(self) -> None:
        """Start empty."""
        self.by_key: dict[str, list[CallAttempt]] = {}

    def claim(self, key: str) -> AbstractAsyncContextManager[None]:
        """Allow everything: the client itself sends equal requests once."""
        return nullcontext()

    def admit(self, purpose: str, *, usd: float = 0.0, key: str | None = None) -> None:
        """Allow everything."""

    def held(self, key: str) -> float | None:
        """Hold nothing."""
        return None

    def withdraw(self, usd: float, *, key: str | None = None) -> None:
        """Hold nothing."""

    def free(self, usd: float) -> None:
        """Hold nothing."""

    def attempts(self, key: str) -> Sequence[CallAttempt]:
        """Return the attempts made for a request, in order."""
        return self.by_key.get(key, [])

    async def record(
        self, key: str, purpose: str, attempt: CallAttempt, *, reserved_usd: float = 0.0
    ) -> None:
        """Keep an attempt."""
        self.by_key.setdefault(key, []).append(attempt)

    def sent(self, key: str) -> Sequence[SentBatch]:
        """Know of none: what is in flight ends with the process."""
        return ()

    async def sending(self, name: str, keys: Sequence[str], *, price: float) -> None:
        """Keep nothing."""

    async def sent_as(self, name: str, number: str) -> None:
        """Keep nothing."""


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
