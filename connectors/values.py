"""What is done with values of either kind: Structs, and dataclasses.

What Python programs and callbacks get is a dataclass; so are the few values that leave a field out of a comparison.
All other values are Structs, which take less than a tenth of the time to define.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

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


def text_without(value: Struct, *hidden: str) -> str:
    """Return the text of a Struct without some of its fields: secrets, and what nobody would read."""
    kind = type(value)
    shown = (f"{name}={getattr(value, name)!r}" for name in kind.__struct_fields__ if name not in hidden)
    return f"{kind.__qualname__}({', '.join(shown)})"


def _plain(value: Any) -> Any:
    if isinstance(value, Struct) or dataclasses.is_dataclass(value):
        return asdict(value)  # type: ignore[arg-type]  # a Struct, as above
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


__all__ = ["asdict", "names_of", "replace", "text_without"]
