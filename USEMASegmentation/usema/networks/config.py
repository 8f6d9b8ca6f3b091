"""What the networks' configurations have in common: they are dictionaries in a bundle's model.json."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import InputError

if TYPE_CHECKING:
    from typing_extensions import Self  # typing.Self is younger than Python 3.10


class NetworkConfig:
    """Base of the configurations: frozen dataclasses, whose tuples are lists in JSON.

    Attributes:
        architecture: the network's name, in ARCHITECTURES and in messages.
        axes: 2 or 3, the spatial axes of its images.
    """

    architecture: ClassVar[str]
    axes: ClassVar[int] = 2

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read a configuration as :meth:`to_dict` gives it; lists become tuples.

        Raises:
            InputError: an unknown or missing key, or a value that does not fit.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise InputError(
                f"Unknown setting of the {cls.architecture} network: {', '.join(unknown)}.", "Update USEMA."
            )
        try:
            return cls(**{key: _as_tuple(value) for key, value in values.items()})
        except TypeError as error:
            raise InputError(f"The configuration of the {cls.architecture} network does not fit: {error}.") from None

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return asdict(self)


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list | tuple) else value
