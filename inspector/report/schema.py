"""The JSON schema of each kind of report, made from the classes that are printed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import msgspec

from inspector.hex_json import printed_types

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(classes: Sequence[str]) -> str:
    """The schema of objects of any of the classes.

    Args:
        classes: As ``module:Class``.
    """
    types = []
    for name in classes:
        module, attribute = name.split(":")
        types.append(getattr(import_module(module), attribute))
    schemas, components = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    whole: dict[str, Any] = {"$schema": _DIALECT, "anyOf": list(schemas), "$defs": components}
    return msgspec.json.format(msgspec.json.encode(printed_types(whole)), indent=2).decode()
