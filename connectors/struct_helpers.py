"""What is done with values of either kind: Structs, and dataclasses.

What Python programs and callbacks get is a dataclass; so are the few values that leave a field out of a comparison,
and what hides one in `callbacks`. All other values are Structs, which take less than a tenth of the time to define.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct, structs

if TYPE_CHECKING:
    from dataclasses import asdict, replace  # by which type checkers know the fields of both kinds
else:

    def replace(value: Any, /, **changes: Any) -> Any:
        """Return a copy with changes, as `copy.replace` does from Python 3.13 on."""
        make = structs.replace if isinstance(value, Struct) else dataclasses.replace
        return make(value, **changes)

    def asdict(value: Any) -> dict[str, Any]:
        """Return the fields by name, those of values in fields and sequences too."""
        return {name: _plain(getattr(value, name)) for name in names_of(type(value))}


def names_of(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of the fields."""
    if issubclass(kind, Struct):
        return kind.__struct_fields__
    return tuple(field.name for field in dataclasses.fields(kind))


class Guarded(Struct, frozen=True, kw_only=True):
    """A Struct whose text leaves some of its fields out: secrets, and what nobody would read."""

    #: Names of these fields.
    _hidden: ClassVar[tuple[str, ...]] = ()

    #: Names that fields had in earlier versions -> where they are now.
    _moved: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:  # else every name would be an attribute

        def __getattr__(self, name: str) -> Any:
            """Say of a field that has moved where it is now."""
            kind = type(self)
            if name in kind._moved:
                raise AttributeError(f"{kind.__name__}.{name} is {kind._moved[name]} now", name=name, obj=self)
            raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        """Return the text."""
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what rich shows, as in a traceback with local variables."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in self._hidden]


def _plain(value: Any) -> Any:
    if isinstance(value, Struct) or dataclasses.is_dataclass(value):
        return asdict(value)  # type: ignore[arg-type]  # a Struct, as above
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


__all__ = ["Guarded", "asdict", "names_of", "replace"]
