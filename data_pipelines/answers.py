"""What answers of the language model have in common."""

from pydantic import BaseModel, ConfigDict


class StrictAnswer(BaseModel):
    """An answer: every field is there, none is of another type, nothing else is said."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
