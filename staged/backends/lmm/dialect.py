"""Which fields of a request an endpoint takes: learned from its refusals, once for all requests.

Endpoints that speak the same API take different parts of it: reasoning models refuse a temperature
of 0, some servers know no JSON schema, older ones no `max_completion_tokens`, strict ones no
`seed`. What is refused by name is given up, and the same request is asked again without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from staged import strict_json
from staged.backends.http.replies import Refused
from staged.backends.lmm.request import LmmRequest
from staged.backends.lmm.settings import LmmSettings, StructuredOutput
from staged.backends.lmm.wire import wire_schema

_FIELDS = {
    "response_format": re.compile(r"response[_ -]?format|json[_ ]?schema|structured|grammar"),
    "temperature": re.compile(r"temperature"),
    "max_completion_tokens": re.compile(r"max_completion_tokens"),
    "seed": re.compile(r"\bseed\b"),
}
_REFUSES = re.compile(
    r"support|unknown|unrecogni|unexpected|unavailable|not (permitted|allowed|available|valid)"
    r"|invalid|only|deprecated|extra|grammar|must be"
)
_TOO_MUCH = re.compile(r"too (large|long|many|big)|exceed|context length|maximum")
"""A number that is refused, and no field."""
_WEAKER: dict[StructuredOutput, StructuredOutput] = {
    "json_schema": "json_object",
    "json_object": "text",
}


class Dialect:
    """What is sent to one endpoint.

    Attributes:
        known: Whether the endpoint has answered: until then requests go one at a time, so that
            what it refuses is refused once.
    """

    def __init__(self, settings: LmmSettings) -> None:
        """Begin with everything, but for what the settings leave out."""
        self._settings = settings
        self._auto_form = settings.structured_output == "auto"
        self._form: StructuredOutput = (
            "json_schema" if settings.structured_output == "auto" else settings.structured_output
        )
        self._temperature = 0.0 if settings.temperature == "auto" else settings.temperature
        self._length = "max_completion_tokens"
        self._sends_seed = True
        self._schema_in_text = False
        self._needs_no_text = False
        self.known = False

    def fields(self, request: LmmRequest[Any], number: int) -> dict[str, Any]:
        """Return the fields beside model and messages.

        Args:
            request: What is asked.
            number: Answers that were not valid; another one is asked for under another seed.
        """
        fields: dict[str, Any] = {}
        if self._sends_seed:
            fields["seed"] = request.seed + number
        if self._temperature is not None:
            fields["temperature"] = self._temperature
        if request.top_logprobs is not None:
            fields[self._length] = 1
            return fields | {"logprobs": True, "top_logprobs": request.top_logprobs}
        fields[self._length] = self._settings.max_output_tokens
        if self._form == "json_schema":
            schema = {"name": request.purpose, "schema": wire_schema(request.answer)}
            fields["response_format"] = {
                "type": "json_schema",
                "json_schema": {**schema, "strict": True},
            }
        elif self._form == "json_object":
            fields["response_format"] = {"type": "json_object"}
        return fields

    def instructions(self, request: LmmRequest[Any], *, again: bool) -> str:
        """Return the system message: with the schema, where nothing else tells the model.

        Args:
            request: What is asked.
            again: After an answer that was not valid. Some servers ignore a schema without a word.
        """
        if request.top_logprobs is not None or not self._says_schema(again=again):
            return request.instructions
        return f"{request.instructions}\n\n{_in_words(request.answer)}".strip()

    def answered(self, *, valid: bool, again: bool) -> None:
        """Learn from an answer whether the schema is heard without being said."""
        self.known = True
        if valid and not self._says_schema(again=again):
            self._needs_no_text = True
        elif valid and self._auto_form and not self._needs_no_text:
            self._schema_in_text = True

    def gives_up(self, refusal: Refused, sent: Mapping[str, Any]) -> bool:
        """Give up the field that a refusal names; False where that is no way out.

        Args:
            refusal: What the endpoint said.
            sent: The body that it refused.
        """
        said = refusal.text.lower()
        if refusal.kind not in ("bad_request", "server_error") or _TOO_MUCH.search(said):
            return False
        for name, known in _FIELDS.items():
            named = refusal.param == name or (known.search(said) and _REFUSES.search(said))
            # A server that breaks over a request is not asked to explain: only grammars do that.
            broke = refusal.kind == "server_error" and name != "response_format"
            ours = name in sent and name not in self._settings.extra_body
            if named and ours and not broke:
                return self._without(name, sent)
        return False

    def _without(self, name: str, sent: Mapping[str, Any]) -> bool:
        match name:
            case "response_format":
                if sent[name]["type"] != self._form:
                    return True  # another request has learned it meanwhile
                if self._auto_form:
                    self._form = _WEAKER[self._form]
                return self._auto_form
            case "temperature":
                if self._settings.temperature == "auto":
                    self._temperature = None
                return self._temperature is None
            case "max_completion_tokens":
                self._length = "max_tokens"
            case "seed":
                self._sends_seed = False
        return True

    def _says_schema(self, *, again: bool) -> bool:
        return self._form != "json_schema" or (self._auto_form and (again or self._schema_in_text))


def _in_words(answer: type[BaseModel]) -> str:
    schema = strict_json.dumps(wire_schema(answer))
    return f"Answer with one JSON object of this JSON schema, and with nothing else: {schema}"
