"""Numbers of 64 bits in JSON: nothing that a reader with doubles would round."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from inspector.hex_json import EXACT, Hex, Wide, encode_json, printed_types
from tests.unit.test_report import finding


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    address: Hex
    above: Hex | None = None


class Whole(msgspec.Struct, frozen=True, rename={"kind": "type"}):
    kind: str
    parts: list[Part]
    index: Wide
    facts: dict[str, str | Wide | bool | None]
    part: Part | None
    named: dict[str, Part]
    flags: tuple[Hex, ...] = ()


def test_addresses_are_hex_and_other_numbers_where_they_are_wide() -> None:
    facts = {"small": -1, "wide": (1 << 64) - 1, "on": True, "off": None, "text": "0x", "least": -(1 << 63)}
    part = Part(0, 0xFFFF888000000000)
    whole = Whole("x", [part, Part(0x1000)], EXACT + 1, facts, part, {"one": part}, (1, 2))
    printed = json.loads(encode_json(whole))
    assert printed == {
        "type": "x",
        "parts": [{"address": "0x0", "above": "0xffff888000000000"}, {"address": "0x1000"}],
        "index": "0x20000000000001",
        "facts": facts | {"wide": "0xffffffffffffffff", "least": "-0x8000000000000000"},
        "part": {"address": "0x0", "above": "0xffff888000000000"},
        "named": {"one": {"address": "0x0", "above": "0xffff888000000000"}},
        "flags": ["0x1", "0x2"],
    }
    (schema,), parts = msgspec.json.schema_components([Whole], ref_template="#/$defs/{name}")
    jsonschema.validate(printed, printed_types({**schema, "$defs": parts}))
    assert whole.index == EXACT + 1


@pytest.mark.parametrize("index", [0, EXACT, -EXACT])
def test_what_every_reader_holds_stays_a_number(index: int) -> None:
    assert json.loads(encode_json(Whole("x", [], index, {}, None, {})))["index"] == index


def test_a_finding_loses_nothing_in_a_reader_with_doubles() -> None:
    def rounded(text: str) -> float:
        return float(text)

    printed: Any = json.loads(encode_json(finding(observed={"word": (1 << 63) + 1})), parse_int=rounded)
    assert printed["observed"]["word"] == hex((1 << 63) + 1)
    assert printed["subject"]["page"] == "0xffffea0000048d00"
    assert printed["evidence"]["mappings"][0]["entry"] == "0x67"
