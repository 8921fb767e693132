"""What OpenAI's clients send and read, as far as it means something here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from staged.server.schemas import DrawOptions

Size = Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$", max_length=11)]
Samples = Annotated[int, Field(ge=1, le=1000)]
PartialImages = Annotated[int, Field(ge=0, le=3)]
Ignored = Annotated[str, Field(max_length=500)]
"""Taken, and without effect: what it asks for has no meaning here."""


class ImageOptions(DrawOptions):
    """What drawing and editing share: OpenAI's fields, and ours under their usual names."""

    model: str | None = Field(None, max_length=500, description="As `/v1/models` names it.")
    n: Samples | None = Field(None, description="Pictures; their seeds count up.")
    size: Size | None = Field(None, description="WIDTHxHEIGHT in pixels, or auto.")
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="Pictures in the answer (the default), or addresses on this server."
    )
    output_format: Literal["png"] | None = Field(None, description="Pictures are PNG.")
    background: Literal["auto", "opaque"] | None = Field(None, description="Always opaque.")
    stream: bool | None = Field(None, description="Answer with partial images; for one picture.")
    partial_images: PartialImages | None = Field(
        None, description="Partial images of a stream, at most."
    )
    quality: Ignored | None = Field(None, description="Has no effect; see `num_flow_steps`.")
    style: Ignored | None = Field(None, description="Has no effect.")
    moderation: Ignored | None = Field(None, description="Has no effect.")
    user: Ignored | None = Field(None, description="Has no effect.")
    safety_identifier: Ignored | None = Field(None, description="Has no effect.")


class ImageRequest(ImageOptions):
    """A picture to draw."""

    prompt: str = Field(description="What to draw.")


class ImageDatum(BaseModel):
    """One picture."""

    b64_json: str | None = Field(None, description="PNG in base64.")
    url: str | None = Field(None, description="Where it is, for whoever has the address.")
    revised_prompt: str = Field(description="The prompt as the model read it.")
    seed: int = Field(description="That draws it again.")
    trajectory: str = Field(description="How it came: see /v1/trajectories.")
    complete: bool = Field(description="Whether the model came to its end.")
    reason: str | None = Field(description="Why it did not.")


class ImagesAnswer(BaseModel):
    """Pictures that were drawn."""

    created: int = Field(description="When, in seconds since 1970.")
    data: list[ImageDatum]
    output_format: Literal["png"] = "png"
    background: Literal["opaque"] = "opaque"
    size: str = Field(description="WIDTHxHEIGHT of the first.")


class ImageAddress(BaseModel):
    """An image in a message."""

    model_config = ConfigDict(extra="ignore")
    url: str = Field(description="A data URL; nothing is fetched.")


class ContentPart(BaseModel):
    """A part of a message: a text or an image."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageAddress | None = None


class ChatMessage(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user"] = Field(
        description="One of the user, and what stands before it."
    )
    content: (
        Annotated[str, Field(max_length=100_000)]
        | Annotated[list[ContentPart], Field(max_length=100)]
    )


class ChatRequest(BaseModel):
    """A question about images. OpenAI's other fields are taken, and without effect."""

    model_config = ConfigDict(extra="ignore")
    model: str = Field(max_length=500, description="As `/v1/models` names it.")
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=16)]
    max_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=10**6)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**62)] | None = None
    n: Literal[1] | None = None
    stream: bool | None = None
    tools: None = Field(None, description="Not supported.")
    functions: None = Field(None, description="Not supported.")


class ChatUsage(BaseModel):
    """Tokens of the texts; those of images are not counted."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatAnswerMessage(BaseModel):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: ChatAnswerMessage
    finish_reason: Literal["stop"] = "stop"
    logprobs: None = None


class ChatAnswer(BaseModel):
    """An answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["staged"] = "staged"


class ModelList(BaseModel):
    """The models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
