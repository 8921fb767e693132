"""Requests made up from the server's own OpenAPI schema, valid and not: none breaks it."""

import json
from collections.abc import Iterator, Mapping

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from server_process import ServerProcess, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    out = tmp_path_factory.mktemp("fuzz") / "home"
    with serving(out, "limits.deadline_s=20") as server:
        yield server


BEYOND = ("width", "height", "size", "num_flow_steps", "max_flow_steps", "max_rounds", "think")
"""Options most of whose values are out of range."""


def deepen(case: schemathesis.Case, known: Mapping[str, str]) -> None:
    """Let some requests get further than made up names and words would."""
    if case.method != "DELETE" and len(case.path_parameters.get("id", "")) % 3:
        case.path_parameters["id"] = known["x-trajectory-id"]
    if not isinstance(case.body, dict):
        return
    # A deadline that nobody could keep is answered with 504, as it should be.
    case.body.pop("deadline_s", None)
    if case.body.get("model") and len(str(case.body["model"])) % 3:
        case.body["model"] = "miniature:staged"
    if isinstance(prompt := case.body.get("prompt"), str) and len(prompt) % 3:
        case.body["prompt"] = "a star"
        for name in BEYOND:
            case.body.pop(name, None)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=str)
def test_no_request_breaks_the_server(server: ServerProcess, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    body = {"prompt": "a star", "mode": "one-shot"}
    known = httpx.post(f"{server.url}/v1/trajectories", json=body, timeout=60).headers
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 12
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not operation.body and not operation.query:
            continue  # there is nothing in it that could be wrong

        @settings(
            max_examples=8,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case) -> None:
            deepen(case, known)
            case.validate_response(case.call(timeout=60), checks=CHECKS)

        ask()
    told = [json.loads(line) for line in server.log.read_text().splitlines()]
    statuses = {line["status"] for line in told if line["event"] == "request"}
    assert 400 in statuses and statuses & {200, 202}
    assert not any(line["level"] in ("warning", "error") for line in told)
