"""Values of either kind are copied and shown alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import Struct

from syncblocks.connectors.values import asdict, names_of, replace


class Engine(Struct, frozen=True, kw_only=True):
    """A value of the engine."""

    name: str
    parts: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """A value that users get."""

    name: str
    parts: tuple[Any, ...] = ()


@pytest.mark.parametrize("kind", [Engine, Users])
def test_a_copy_has_the_changes(kind: Callable[..., Any]) -> None:
    first = kind(name="a", parts=(1,))
    second = replace(first, name="b")
    assert (second.name, second.parts) == ("b", (1,))
    assert second == kind(name="b", parts=(1,)) != first


@pytest.mark.parametrize("kind", [Engine, Users])
def test_a_copy_with_an_unknown_field_is_refused(kind: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="nmae"):
        replace(kind(name="a"), nmae="b")


@pytest.mark.parametrize("kind", [Engine, Users])
def test_the_fields_hold_those_of_values_within(kind: Callable[..., Any]) -> None:
    whole = kind(name="a", parts=(Engine(name="b"), Users(name="c"), [Engine(name="d")], {"e": 1}))
    inner = [{"name": name, "parts": ()} for name in "bcd"]
    assert asdict(whole) == {"name": "a", "parts": (inner[0], inner[1], [inner[2]], {"e": 1})}
    assert names_of(kind) == ("name", "parts")  # type: ignore[arg-type]


def test_users_may_ask_dataclasses_for_theirs() -> None:
    assert dataclasses.asdict(Users(name="a")) == {"name": "a", "parts": ()}
