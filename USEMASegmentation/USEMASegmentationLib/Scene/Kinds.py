"""Whether each option is of the kind that it takes: a script may give anything."""

from __future__ import annotations

import os
from dataclasses import Field, fields
from numbers import Real

from usema.errors import InputError

from ..Parameters import Parameters


def refuseOtherKinds(parameters: Parameters) -> None:
    """Refuse what is no node, list, number or text where one is needed.

    Raises:
        InputError: names the option, what it is given, and what it takes.
    """
    for option in fields(Parameters):
        value = getattr(parameters, option.name)
        wanted = _wantedInstead(option, value)
        if wanted:
            raise InputError(f"The option {option.name!r} is {_described(value)}.", f"It takes {wanted}.")


def _wantedInstead(option: Field, value) -> str:
    """What the option takes; empty: a value such as this one."""
    kinds = option.metadata
    if "node" in kinds:
        return "" if value is None or _isNode(value, kinds["node"]) else f"a {kinds['node']}"
    if "nodes" in kinds:
        fits = all(one is None or _isNode(one, kinds["nodes"]) for one in value)
        return "" if fits else f"a list of nodes of the class {kinds['nodes']}"
    if "texts" in kinds:
        return "" if all(isinstance(one, str) for one in value) else "a list of names"
    if "span" in kinds:
        return "" if value is None or (isinstance(value, Real) and not isinstance(value, bool)) else "a number"
    if isinstance(option.default, bool):
        return "" if isinstance(value, bool) else "True or False"
    return "" if value is None or isinstance(value, str | os.PathLike) else "text"


def _isNode(value, kind: str) -> bool:
    return hasattr(value, "IsA") and bool(value.IsA(kind))


def _described(value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_described, value))}]"
    return f"a {value.GetClassName()}" if hasattr(value, "GetClassName") else repr(value)
