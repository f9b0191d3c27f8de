"""`protocol/openapi.yaml` is valid, says what the application has, and real answers are as it says."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from starlette.routing import Route

from mayfly import errors, file_model, model, sandbox_model
from mayfly.client.address import NodeAddress
from mayfly.client.http import open_exchange
from mayfly.server.app import create_app
from mayfly.testing.nodes import ScriptedNode, open_server

if TYPE_CHECKING:
    from collections.abc import Iterator

SPECIFICATION = Path(__file__).parents[2] / "protocol" / "openapi.yaml"
JSON = {"Content-Type": "application/json"}


@cache
def specification() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(SPECIFICATION.read_text())
    return loaded


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": specification()["components"]})


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    while reference := part.get("$ref"):
        part = specification()
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    return part


def test_it_is_valid_openapi() -> None:
    validate(specification())


def test_it_has_every_route_of_the_application_and_no_other() -> None:
    app = create_app(ScriptedNode(), token=None)
    routes = {
        (route.path, method)
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, method.upper()) for path, item in specification()["paths"].items() for method in item}
    assert routes == described


SANDBOX_STRUCTS = [
    value
    for module in (sandbox_model, file_model)
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == module.__name__
]

STRUCTS = [
    *SANDBOX_STRUCTS,
    model.Accepted,
    model.ErrorInfo,
    model.Execution,
    model.ExecutionRequest,
    model.Finding,
    model.Finished,
    model.HostInfo,
    model.Limits,
    model.Output,
    model.SandboxLimits,
    model.Stage,
    model.StageDone,
    model.Usage,
    model.Verdict,
]


REQUESTED = (
    model.ExecutionRequest,
    model.Limits,
    model.SandboxLimits,
    *(struct for struct in SANDBOX_STRUCTS if struct.__struct_config__.forbid_unknown_fields),
)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: str(struct.__name__))
def test_schemas_have_the_fields_ranges_and_defaults_of_the_structs(struct: Any) -> None:
    ours = msgspec.json.schema_components([struct], ref_template="{name}")[1][struct.__name__]
    theirs = specification()["components"]["schemas"][struct.__name__]
    extra = {"retry_after_s"} if struct is model.ErrorInfo else set()
    assert set(theirs["properties"]) - extra == set(ours["properties"])
    for name, field in ours["properties"].items():
        said = resolved(theirs["properties"][name])
        for key in ("minimum", "maximum", "minLength", "maxLength", "pattern", "maxItems", "maxProperties"):
            # Answers may say more than the structs check; requests are checked exactly as described.
            if key in field or struct in REQUESTED:
                assert said.get(key) == field.get(key), f"{struct.__name__}.{name}: {key}"
        if "enum" in field:
            assert sorted(said.get("enum", [said.get("const")])) == sorted(field["enum"])
        for option in field.get("anyOf", ()):
            if "minimum" in option or "maxLength" in option:
                assert option in said["anyOf"]


def test_every_error_code_is_listed() -> None:
    said = specification()["components"]["schemas"]["ErrorInfo"]["properties"]["code"]["description"]
    listed = set(said.replace(",", " ").replace(".", " ").replace("Stable:", " ").split())
    kinds = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    assert listed == {kind.code for kind in kinds}


def _examples() -> Iterator[tuple[str, dict[str, Any], Any]]:
    for path, item in specification()["paths"].items():
        for operation in item.values():
            parts = [operation.get("requestBody", {}), *operation["responses"].values()]
            for part in parts:
                for kind, media in resolved(part).get("content", {}).items():
                    values = [one["value"] for one in media.get("examples", {}).values()]
                    values += [media["example"]] if "example" in media else []
                    if kind == "application/x-ndjson":
                        values = [msgspec.json.decode(line) for text in values for line in text.splitlines()]
                    yield from ((f"{path} {kind}", media["schema"], value) for value in values)


def test_its_examples_are_as_its_schemas_say() -> None:
    examples = list(_examples())
    assert len(examples) > 8
    for where, schema, value in examples:
        try:
            validator(schema).validate(value)
        except ValidationError as error:
            pytest.fail(f"{where}: {error.message}")


REQUESTS: dict[str, tuple[str, str, Any]] = {
    "health": ("GET", "/healthz", None),
    "host": ("GET", "/v1/host", None),
    "execution": ("POST", "/v1/executions", {"code": "out x\nexit 1"}),
    "denied": ("POST", "/v1/executions", {"code": "status denied"}),
    "stream": ("POST", "/v1/executions?stream=true", {"code": "out x\nhex ff"}),
    "invalid": ("POST", "/v1/executions", {"code": "", "limits": {"pids": 0}}),
    "full": ("POST", "/v1/executions", {"code": "refuse capacity"}),
    "failed": ("POST", "/v1/executions", {"code": "fail disk_full"}),
    "unknown": ("GET", "/v1/executions/none", None),
    "late input": ("POST", "/v1/executions/none/stdin", None),
}


@pytest.mark.anyio
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_real_answers_are_as_it_says(tmp_path: Path, request_: tuple[str, str, Any]) -> None:
    method, target, body = request_
    address = NodeAddress(unix_socket=tmp_path / "n")
    content = b"" if body is None else msgspec.json.encode(body)
    async with (
        open_server(ScriptedNode(), unix_socket=tmp_path / "n"),
        open_exchange(address, method, target, headers=JSON, content=content, deadline_s=10) as answer,
    ):
        raw = await answer.read(limit_bytes=1_000_000, deadline_s=10)
    path = target.partition("?")[0].replace("/none", "/{id}")
    response = resolved(specification()["paths"][path][method.lower()]["responses"][str(answer.status)])
    kind = answer.headers["content-type"]
    lines = raw.splitlines() if kind == "application/x-ndjson" else [raw]
    for line in lines:
        validator(response["content"][kind]["schema"]).validate(msgspec.json.decode(line))
    for name in response.get("headers", {}):
        assert name.lower() in answer.headers
