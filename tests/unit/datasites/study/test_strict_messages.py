"""Every message, and every value inside one, refuses unknown fields, missing fields and wrong types."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any

import pytest

from datasites.study import messages, proposal, signing, thread
from datasites.study.signing import Message, parse
from privacy.errors import InvalidInput


def _classes() -> list[type]:
    """Return every message of the study room and every dataclass that one of its fields holds."""
    found: dict[type, None] = {}
    waiting: list[Any] = [
        value
        for module in (messages, proposal, signing, thread)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Message) and value is not Message
    ]
    while waiting:
        kind = waiting.pop()
        if dataclasses.is_dataclass(kind) and kind not in found:
            found[kind] = None
            hints = typing.get_type_hints(kind)
            waiting += [hints[field.name] for field in dataclasses.fields(kind)]
        waiting += typing.get_args(kind)
    return sorted(found, key=lambda kind: kind.__name__)


CLASSES = _classes()
_CHECKED = {"colluders": 1, "aggregation": "fedavg", "server_optimizer": "sgd", "noise": "local"}
"""Values of fields that the object itself checks when it is made."""
_CHECKED_IN: dict[str, dict[str, Any]] = {
    "Chain": {"model_hash": "0" * 64, "study": ""},
    "PublicConstants": {"tables_hash": "0" * 64, "constants_hash": "0" * 64},
    "Filing": {"contact": "a@b.example", "no_ethics_vote": "", "data_use": ["DUO:0000006"]},
    "Recipient": {"country": "DE"},
    "Proposal": {"replaces": ""},
    "Target": {"spread": 0.0, "edges": []},
}


def _example(kind: Any) -> Any:
    """Return plain JSON that ``kind`` takes field by field; values are not checked for sense."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        checked = _CHECKED | _CHECKED_IN.get(kind.__name__, {})
        return {name: checked.get(name, _example(hint)) for name, hint in _fields(kind)}
    if origin is typing.Annotated:
        patterns = [str(getattr(constraint, "pattern", "")) for constraint in args[1:]]
        digits = "0" * 64 if any("{64}" in pattern for pattern in patterns) else "1"
        return digits if args[0] is str else _example(args[0])
    if origin in (typing.Union, UnionType):
        return _example(args[0])
    if origin is typing.Literal:
        return args[0]
    if origin is tuple:
        return [_example(args[0])]
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return {"a": _example(args[1])}
    return {str: "a", int: 3, float: 0.5, bool: True, Any: "a", type(None): None}[kind]


def _fields(kind: type) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return ((field.name, hints[field.name]) for field in dataclasses.fields(kind))


def _complaint(kind: type, data: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse(kind, data)
    return str(caught.value)


def test_the_walk_finds_the_messages_and_what_is_inside() -> None:
    names = {kind.__name__ for kind in CLASSES}
    assert names >= {"Proposal", "Party", "RoundPlan", "Attestation", "Signed", "WorkItem", "Refusal"}
    assert names >= {"Mechanism", "LossRelease", "CountRelease", "HistogramRelease", "EncryptionParameters"}


@pytest.mark.parametrize("kind", CLASSES)
def test_an_unknown_field_is_refused(kind: type) -> None:
    assert "surprise" in _complaint(kind, {**_example(kind), "surprise": 1})


@pytest.mark.parametrize("kind", CLASSES)
def test_every_field_without_a_default_has_to_be_there(kind: type) -> None:
    for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            data = {name: value for name, value in _example(kind).items() if name != field.name}
            assert field.name in _complaint(kind, data)


@pytest.mark.parametrize("kind", CLASSES)
def test_no_field_takes_another_type(kind: type) -> None:
    for name, hint in _fields(kind):
        for wrong in _wrong(hint):
            assert f"{kind.__name__}: {name}" in _complaint(kind, {**_example(kind), name: wrong}), (name, wrong)


def _wrong(hint: Any) -> list[Any]:
    """Return values that only a lenient reader would take for ``hint``."""
    if hint is str or typing.get_origin(hint) is typing.Literal:
        return [7.5, False, ["a"]]
    if hint is int:
        return ["3", 3.0, True]
    if hint is float:
        return ["0.5", True]
    if hint is bool:
        return [1, "true"]
    return [{"surprise": 1}] if typing.get_origin(hint) is tuple else []
