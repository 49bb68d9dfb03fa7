"""The orchestrator's API as OpenAPI describes it: what an address may hold, what is sent, what an error looks like.

Bodies are read by our own code, after the caller is known, so FastAPI has to be told what they are.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import Path
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import from_json

from datasites.node.web.problems import documented
from datasites.study.signing import Signed
from privacy.errors import InvalidInput

M = TypeVar("M", bound=BaseModel)

StudyName = Annotated[str, Path(pattern="^[^\\x00-\\x1f\\x7f]{1,80}$", description="the study's name")]
RoundNumber = Annotated[int, Path(ge=1, le=1_000_000, description="the round, from 1")]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the bytes")]


class StudyRegistration(BaseModel):
    """A signed proposal and the model that it begins with."""

    model_config = ConfigDict(extra="forbid")
    proposal: dict[str, Any]
    model_hash: str


ERRORS: dict[int | str, dict[str, Any]] = {
    400: documented("malformed, or changed after it was signed"),
    403: documented("no valid token, or not allowed"),
    404: documented("no such address"),
    409: documented("a privacy cap would be passed, or a sum may not be decrypted"),
    422: documented("does not have the documented shape"),
    507: documented("the disk has no room; ask again later"),
}


def checked_body(kind: type[M], body: bytes) -> M:
    """Read JSON that arrived.

    FastAPI would take in a body of any length before the caller is known.

    Raises:
        InvalidInput: not JSON, or of another shape; the message names the first fault.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise InvalidInput(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def read_json(body: bytes) -> Any:
    """Read JSON that arrived, of any shape.

    Raises:
        InvalidInput: not JSON, or nested deeper than anything of ours.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput(f"expected JSON, could not read it: {str(error)[:200]}") from error


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the description of a JSON body."""
    return _body("application/json", _whole(kind.model_json_schema()))


def _body(content: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {content: {"schema": schema}}}}


def _whole(schema: dict[str, Any]) -> dict[str, Any]:
    """Put definitions where they are used: there is no place for them in the middle of an OpenAPI document."""
    known = schema.pop("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            name = str(value.get("$ref", "")).rpartition("/")[2]
            return put(known[name]) if name in known else {key: put(item) for key, item in value.items()}
        return [put(item) for item in value] if isinstance(value, list) else value

    whole: dict[str, Any] = put(schema)
    return whole


def object_of(*fields: str) -> dict[str, Any]:
    """Return the description of a JSON object with these fields and no other."""
    properties: dict[str, Any] = {field: {} for field in fields}
    schema = {"type": "object", "required": list(fields), "properties": properties, "additionalProperties": False}
    return _body("application/json", schema)


SIGNED_BODY = _body("application/json", _whole(TypeAdapter(Signed).json_schema()))
REGISTRATION_BODY = body_of(StudyRegistration)
BINARY_BODY = _body("application/octet-stream", {"type": "string", "format": "binary"})
BINARY_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
