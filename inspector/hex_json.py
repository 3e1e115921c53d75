"""JSON of reports: addresses and other words of 64 bits are hex strings, which no reader of JSON rounds.

Most readers, jq and JavaScript among them, hold numbers as doubles: whole up to 2^53. In Python a report holds
integers; a field's type says how it is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

_PATTERN = "^-?0x[0-9a-f]+$"
_TYPES: dict[str, str | list[str]] = {"hex": "string", "wide": ["integer", "string"]}
"""By the word of a type's schema, how its values are printed; msgspec itself takes it for an integer."""

Hex = Annotated[int, msgspec.Meta(extra_json_schema={"format": "hex", "pattern": _PATTERN})]
"""An address, or a word of bits such as an entry: always a hex string."""

EXACT = 1 << 53
"""Integers up to here are the same in every reader."""

Wide = Annotated[int, msgspec.Meta(extra_json_schema={"format": "wide", "pattern": _PATTERN})]
"""A number of up to 64 bits that is small where nothing is damaged: a hex string beyond `EXACT`."""

_Convert = Callable[[Any], Any]


def encode_json(report: object) -> bytes:
    """A report, or a part of one, as JSON on one line."""
    return msgspec.json.encode(_converted(report))


def printed_types(schema: Any) -> Any:
    """A schema that msgspec made of reports, with the types that `encode_json` prints."""
    if isinstance(schema, list):
        return [printed_types(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: printed_types(one) for name, one in schema.items()}
    form = changed.get("format")
    return changed | {"type": _TYPES[form]} if isinstance(form, str) and form in _TYPES else changed


def _converted(value: object) -> object:
    if not isinstance(value, msgspec.Struct):
        return value
    changed = {name: convert(getattr(value, name)) for name, convert in _converters(type(value))}
    # The types of fields are not checked here: a copy may hold strings where its class has integers.
    return msgspec.structs.replace(value, **changed) if changed else value


@cache
def _converters(kind: type[msgspec.Struct]) -> tuple[tuple[str, _Convert], ...]:
    """The fields of a class that are to be converted, and how."""
    hints = get_type_hints(kind, include_extras=True)
    found = ((name, _converter(hints[name])) for name in kind.__struct_fields__)
    return tuple((name, convert) for name, convert in found if convert is not None)


def _converter(hint: Any) -> _Convert | None:
    """How values of a type are converted; None where they are printed as they are."""
    if hint == Hex:
        return hex
    if hint == Wide:
        return _wide
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _converted
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _of_union([_converter(one) for one in arguments])
    if origin in (list, tuple) and (each := _converter(arguments[0])):
        return partial(_each, each)
    if origin is dict and (each := _converter(arguments[1])):
        return partial(_each_value, each)
    return None


def _each(convert: _Convert, values: Iterable[Any]) -> list[Any]:
    return [convert(value) for value in values]


def _each_value(convert: _Convert, values: dict[str, Any]) -> dict[str, Any]:
    return {name: convert(value) for name, value in values.items()}


def _of_union(converters: list[_Convert | None]) -> _Convert | None:
    number = next((c for c in converters if c in (hex, _wide)), None)
    other = next((c for c in converters if c is not None and c is not number), None)
    if number is None and other is None:
        return None

    def convert(value: Any) -> Any:
        if type(value) is int:
            return number(value) if number else value
        return other(value) if other and value is not None and not isinstance(value, str | bool) else value

    return convert


def _wide(value: int) -> int | str:
    return value if -EXACT <= value <= EXACT else hex(value)
