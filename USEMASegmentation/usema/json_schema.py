"""Checks a JSON document against the part of JSON Schema that USEMA's own schema files use.

3D Slicer's Python has no ``jsonschema`` package, and the panel must read a model's metadata before anything is
installed. With these few lines a schema file is the only place where the rules stand; the tests compare the verdicts
with those of ``jsonschema`` itself. Standard library only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

# Python counts True as 1; JSON does not.
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
}

# keyword: the type it speaks about, when a value breaks it, and how to say so.
_LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool], str]] = {
    "minimum": ("number", lambda value, limit: value < limit, "less than"),
    "maximum": ("number", lambda value, limit: value > limit, "more than"),
    "exclusiveMinimum": ("number", lambda value, limit: value <= limit, "not more than"),
    "const": ("integer", lambda value, limit: value != limit, "not"),
    "minLength": ("string", lambda value, limit: len(value) < limit, "shorter than"),
    "maxLength": ("string", lambda value, limit: len(value) > limit, "longer than"),
    "pattern": ("string", lambda value, limit: re.search(limit, value) is None, "not of the form"),
    "enum": ("string", lambda value, limit: value not in limit, "none of"),
    "minItems": ("array", lambda value, limit: len(value) < limit, "shorter than"),
    "maxItems": ("array", lambda value, limit: len(value) > limit, "longer than"),
}
_STRUCTURE = {"type", "required", "properties", "additionalProperties", "items"}
_WORDS_ONLY = {"$schema", "$id", "$defs", "title", "description"}


def problems(document: Any, schema: dict, path: str = "", root: dict | None = None) -> Iterator[str]:
    """Says, a sentence each, where ``document`` breaks ``schema``; yields nothing for a valid document.

    Args:
        document: what ``json.loads`` returned.
        schema: a JSON Schema (draft 2020-12) that keeps to the keywords above; ``const`` for integers, ``enum`` for
            strings, ``additionalProperties`` true or false, ``$ref`` into ``$defs``.
        path: where ``document`` stands in the whole, as in ``labels[1].color``.
        root: the whole schema, which ``$ref`` points into.

    Raises:
        NotImplementedError: the schema has a keyword that would be ignored without a word.
    """
    root = schema if root is None else root
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    unknown = set(schema) - set(_LIMITS) - _STRUCTURE - _WORDS_ONLY
    if unknown:
        raise NotImplementedError(f"JSON Schema keywords {sorted(unknown)}")
    where = path or "the document"

    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(_TYPES[name](document) for name in types):
        yield f"{where} is {_shown(document)}, which is no {' or '.join(types)}"
        return
    for keyword, (speaks_of, broken, words) in _LIMITS.items():
        if keyword in schema and _TYPES[speaks_of](document) and broken(document, schema[keyword]):
            yield f"{where} is {_shown(document)}, {words} {_shown(schema[keyword])}"

    if isinstance(document, list) and "items" in schema:
        for index, item in enumerate(document):
            yield from problems(item, schema["items"], f"{path}[{index}]", root)
    if isinstance(document, dict):
        properties = schema.get("properties", {})
        for key in schema.get("required", []):
            if key not in document:
                yield f"{where} has no {key!r}"
        for key, value in document.items():
            inner = f"{path}.{key}" if path else key
            if key in properties:
                yield from problems(value, properties[key], inner, root)
            elif not schema.get("additionalProperties", True):
                yield f"{inner} is not a known key"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 80 else text[:77] + "..."
