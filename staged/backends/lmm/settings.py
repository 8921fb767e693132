"""Where a language model is asked, and how: addresses, prices, patience, batches."""

from dataclasses import dataclass, field
from typing import Any, Literal

from staged.ranges import check_range

StructuredOutput = Literal["json_schema", "json_object", "text"]
"""How an answer is made to fit its schema: by the endpoint, or by words in the instructions, with
the endpoint seeing to it that it is JSON or not even that."""


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
