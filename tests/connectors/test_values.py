"""Values of either kind are copied and shown alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from msgspec import Struct
from rich.pretty import pretty_repr

from syncblocks.callbacks.protocols import Delivery
from syncblocks.connectors.mysql import settings as mysql
from syncblocks.connectors.postgres import settings as postgres
from syncblocks.connectors.stream import LedgerKey, Load, Stream
from syncblocks.connectors.struct_helpers import Guarded, asdict, names_of, replace
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from syncblocks.sync.config.yaml_document import Document
from syncblocks.sync.delivery.subscriptions import CallbackSpec
from syncblocks.sync.store.location import StoreLocation


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


SECRET = "hunter2"


def _stream() -> Stream:
    return Stream(name="people", schema=pa.schema([]), query_values={"token": SECRET})


def _load() -> Load:
    key = LedgerKey(pipeline="p", stream="people", destination_table="people")
    removed = pa.table({"id": [SECRET]})
    disposition = WriteDisposition.MERGE
    return Load(
        key=key, stream=_stream(), write=WriteSpec(disposition=disposition), token="t", run="r:1", removed=removed
    )


@pytest.mark.parametrize(
    "value",
    [
        _stream(),
        _load(),
        postgres.PostgresAddress(host="db", password=SECRET),
        mysql.MySQLAddress(host="db", password=SECRET),
        StoreLocation(shown="postgresql://db/store", uri=f"postgresql://me:{SECRET}@db/store"),
        CallbackSpec(block="notify", digest="d", hook={"url": SECRET}),
        Document("p.yaml", {"password": SECRET}, {}),
        Delivery(
            key="k",
            callback_block="notify",
            function="f",
            attempt=1,
            kwargs={"a": SECRET},
            data=None,
            label="a:b",
            hook={"url": SECRET},
        ),
    ],
    ids=lambda value: type(value).__module__ + "." + type(value).__name__,
)
def test_the_text_of_a_value_tells_no_secret(value: object) -> None:
    assert SECRET not in repr(value)
    assert SECRET not in f"{value}"
    assert SECRET not in pretty_repr(value)
    assert type(value).__name__ in repr(value)


def test_what_is_hidden_is_a_field() -> None:
    kinds = [kind for base in (Guarded, *Guarded.__subclasses__()) for kind in base.__subclasses__()]
    assert len(kinds) >= 7
    for kind in kinds:
        assert set(kind._hidden) <= set(names_of(kind)), kind


def test_a_field_that_has_moved_says_where_it_is_now() -> None:
    with pytest.raises(AttributeError, match=r"^Load.write_disposition is load.write.disposition now$"):
        _ = _load().write_disposition  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"^Stream.latest_by is load.write.latest_by now$"):
        _ = _stream().latest_by  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"^Stream.replication_method is stream.read.method now$"):
        _ = _stream().replication_method  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"^'Stream' object has no attribute 'nothing'$"):
        _ = _stream().nothing  # type: ignore[attr-defined]
    for kind in (Stream, Load):
        assert not set(kind._moved) & set(names_of(kind))
