"""What others rely on, as lines of text: signatures, schemas, commands, messages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import click

# Signatures


def signature(name: str, function: Callable) -> str:
    """As it is called: without self."""
    told = inspect.signature(function)
    parameters = [one for one in told.parameters.values() if one.name not in ("self", "cls")]
    # Annotations are text in these files, which Python quotes.
    return name + re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(told.replace(parameters=parameters)))


def members(kind: type) -> Iterator[str]:
    """The public methods, properties and attributes of the class of a class, inherited ones too."""
    static = {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}
    for name, member in sorted(static.items()):
        if isinstance(member, property):
            yield f"{kind.__name__}.{name} -> {member.fget.__annotations__.get('return', '')}"
        elif isinstance(member, (staticmethod, classmethod)) or inspect.isfunction(member):
            yield signature(f"{kind.__name__}.{name}", getattr(kind, name))


def data_fields(kind: type) -> Iterator[str]:
    """The fields of a dataclass, with their defaults."""
    assert is_dataclass(kind)
    for one in fields(kind):
        default = one.default if one.default_factory is MISSING else one.default_factory()
        yield f"{kind.__name__}.{one.name}: {one.type}" + ("" if default is MISSING else f" = {default!r}")


# Commands


def commands(command: click.Command, name: str) -> Iterator[str]:
    """A command and all below it: arguments and options, each with what it takes."""
    yield name
    for parameter in command.params:
        yield f"    {_parameter(parameter)}"
    if isinstance(command, click.Group):
        context = click.Context(command)
        for below in command.list_commands(context):
            yield from commands(command.get_command(context, below), f"{name} {below}")


def _parameter(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        words = [parameter.name.upper()]
    else:
        words = [*parameter.opts, *(f"/ {one}" for one in parameter.secondary_opts)]
    if isinstance(parameter.type, click.Choice):
        words.append("|".join(map(str, parameter.type.choices)))
    elif not getattr(parameter, "is_flag", False):
        words.append({"text": "text", "path": "path"}.get(parameter.type.name, parameter.type.name))
    if isinstance(parameter.type, (click.IntRange, click.FloatRange)):
        words.append(f"from {parameter.type.min} to {parameter.type.max}")
    if parameter.nargs != 1:
        words.append("any number" if parameter.nargs == -1 else f"{parameter.nargs} values")
    if getattr(parameter, "multiple", False):
        words.append("repeatable")
    if getattr(parameter, "hidden", False):
        words.append("hidden")
    return " ".join([*words, *(["required"] if parameter.required else [])])


# Schemas


def schema_lines(schema: Mapping[str, Any]) -> Iterator[str]:
    """Every key that a document may have, by its path, with its type; a star where it must be there."""
    yield from _keys(schema, "")
    for name, definition in sorted(schema.get("$defs", {}).items()):
        yield from _keys(definition, f"<{name}>")


def _keys(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if path and (path.startswith("<") or "properties" not in schema):
        yield f"{path}: {_type(schema)}"
    for key, below in schema.get("properties", {}).items():
        star = "*" if key in schema.get("required", ()) else ""
        yield from _keys(below, f"{path}{'.' if path else ''}{key}{star}")
    if isinstance(schema.get("items"), dict) and "$ref" not in schema["items"]:
        yield from _keys(schema["items"], f"{path}[]")
    for number, below in enumerate(schema.get("oneOf", schema.get("anyOf", ()))):
        yield from _keys(below, f"{path}({number})")


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return "<" + schema["$ref"].rpartition("/")[2] + ">"
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return f"always {schema['const']}"
    kind = schema.get("type", "any")
    return " or ".join(kind) if isinstance(kind, list) else kind


# Messages

# What a field may be, whichever of these it was this time.
_VARIES = {
    "seconds_left": ("number", "null"),
    "bytes_per_second": ("number", "null"),
    "warnings": ("[]", "[text]"),
    "problems": ("[]", "[text]"),
    "gpu": ("null", "{free: number, name: text, total: number}"),
}


class Recorded(dict):
    """A request that remembers which of its fields were read."""

    def __init__(self, *content, **fields):
        super().__init__(*content, **fields)
        self.read: set[str] = set()

    def get(self, name, default=None):
        self.read.add(name)
        return super().get(name, default)

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


def form(value: Any) -> str:
    """What a value of JSON is made of."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {form(one)}" for key, one in sorted(value.items())) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + " | ".join(sorted({form(one) for one in value})) + "]"
    kinds = {str: "text", int: "number", float: "number", type(None): "null"}
    return next(word for kind, word in kinds.items() if isinstance(value, kind))


def _forms(key: str, value: Any) -> tuple[str, ...]:
    found = form(value)
    return _VARIES[key] if found in _VARIES.get(key, ()) else (found,)


def message_lines(command: str, read: Iterable[str], events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A request and its answers, each with its fields; a field that came in several forms tells all of them."""
    yield f"{command}: {', '.join(sorted(set(read) - {'id', 'command'})) or 'nothing'}"
    known: dict[str, dict[str, set[str]]] = {}
    for event in events:
        seen = known.setdefault(event["event"], {})
        for key, value in event.items():
            seen.setdefault(key, set()).update(_forms(key, value))
    for name, seen in known.items():
        yield f"    {name}"
        yield from (
            f"        {key}: {' or '.join(sorted(forms))}"
            for key, forms in sorted(seen.items())
            if key not in ("id", "event")
        )
