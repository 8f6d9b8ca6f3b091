"""Whether the tensors of a file are exactly those of the network that its description says. torch when it is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def misfits(shapes: Mapping[str, Iterable[int]], architecture: Mapping[str, Any], description: str) -> list[str]:
    """What does not fit, in half sentences; nothing of the network's size is allocated.

    Args:
        shapes: of the tensors, by name.
        architecture: as in ``model.json``.
        description: what says how the network is built, such as "plans".

    Raises:
        InputError: it describes no network.
    """
    from ..networks import without_values

    expected = {name: tuple(tensor.shape) for name, tensor in without_values(dict(architecture)).state_dict().items()}
    found = {name: tuple(shape) for name, shape in shapes.items()}
    problems = [f"it has no {name}" for name in expected if name not in found]
    problems += [f"its {name} belongs to no layer of the {description}" for name in found if name not in expected]
    problems += [
        f"its {name} is {_sides(found[name])}, and by the {description} {_sides(shape)}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    return problems


def and_more(problems: list[str]) -> str:
    """The first, and how many there are beside it."""
    return problems[0] + (f" ({len(problems) - 1} more)" if len(problems) > 1 else "")


def _sides(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"
