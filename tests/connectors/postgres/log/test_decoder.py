"""Blocks of log messages become what a plain decoder reads from them, message by message."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.postgres.log.decoder import Changes, Decoder
from tests.connectors.postgres.log.messages import (
    UNCHANGED,
    Reference,
    begin,
    commit,
    delete,
    framed,
    insert,
    relation,
    truncate,
    update,
)
from tests.thinned import only_full
from tests.tiers import examples

USERS, ORDERS = 16_400, 16_500
STREAM = [
    relation(USERS, "users", "id", "name"),
    begin(0x2000, 5),
    insert(USERS, 1, "Ann"),
    relation(ORDERS, "orders", "id", "note", "sum", identity="f"),
    insert(ORDERS, 7, None, "1.50"),
    insert(USERS, 2, ""),
    commit(0x2000, 0x2030),
    framed(b"Y" + b"\0\0\0\x01public\0mood\0"),
    begin(0x3000, 9),
    update(USERS, 1, UNCHANGED),
    update(USERS, 3, "Bob", key=(2, None)),
    update(ORDERS, 7, "late", "2", old=(7, None, "1.50")),
    delete(USERS, 3, None),
    delete(ORDERS, 7, "late", "2", is_whole=True),
    truncate(USERS, ORDERS),
    insert(USERS, 4, "Cyd"),
    relation(USERS, "users", "id", "name", "age"),
    insert(USERS, 5, "Dan", 40),
    framed(b"M\0anything"),
    commit(0x3000, 0x3080),
]


def changes_of(found: Sequence[Changes]) -> list[tuple[Any, ...]]:
    """Return them as the plain decoder does, by table."""
    made = []
    for each in found:
        columns = range(len(each.relation.columns))

        def rows(tuples: Any, places: Any, columns: Any = columns) -> dict[int, list[Any]]:
            texts = [tuples.texts(place).to_pylist() for place in columns]
            marks = [tuples.unchanged(place) for place in columns]
            found: dict[int, list[Any]] = {}
            for n, place in enumerate(places.tolist()):
                values = zip(texts, marks, strict=True)
                found[place] = [UNCHANGED if mark is not None and mark[n] else column[n] for column, mark in values]
            return found

        new, old = rows(each.new, each.with_new), rows(each.old, each.with_old)
        whole = dict(zip(each.with_old.tolist(), each.is_old_whole.tolist(), strict=True))
        it = each.relation
        described = (it.oid, it.schema, it.name, it.identity, tuple(_column(column) for column in it.columns))
        for n, kind in enumerate(each.operations.tolist()):
            place = (each.commit_lsns[n].view("u8").item(), each.committed_at[n].item(), each.numbers[n].item())
            made.append((described, chr(kind), *place, new.get(n), old.get(n), whole.get(n)))
    return made


def _column(column: Any) -> tuple[Any, ...]:
    return (column.name, column.type_id, column.modifier, column.is_key)


def sorted_changes(changes: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Order them by table; those of one table stay in order."""
    return sorted(changes, key=lambda change: change[0][0])


@given(st.lists(st.integers(0, len(STREAM)), max_size=4))
@settings(max_examples=30)
def test_blocks_say_the_same_wherever_they_are_cut(cuts: list[int]) -> None:
    decoder, reference, found = Decoder(lambda _: True), Reference(), []
    bounds = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(bounds):
        found += changes_of(decoder.decode(STREAM[start:end]))
    assert sorted_changes(found) == sorted_changes(reference.decode(STREAM))
    assert decoder.position == reference.position == 0x3080
    assert not decoder.is_within


def test_what_is_within_a_transaction_is_known() -> None:
    decoder = Decoder(lambda _: True)
    decoder.decode(STREAM[:4])
    assert decoder.is_within
    assert decoder.position == 0


def test_a_table_that_nobody_wants_is_not_taken_apart() -> None:
    decoder = Decoder(lambda relation: relation.name == "orders")
    stream = [*STREAM[:3], insert(USERS, "of one column"), *STREAM[3:7]]
    found = decoder.decode(stream)
    assert [(each.relation.name, len(each.operations)) for each in found] == [("orders", 1)]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (insert(USERS, 1), "not as many columns"),
        (framed(b"I" + USERS.to_bytes(4, "big") + b"N\0\2t\xff\xff\xff\xff"), "longer than its message"),
        (framed(b"S\0\0\0\1\1"), "not asked for"),
        (insert(99, 1), "not described"),
        (commit(0x2001, 0x2030), "not that of its transaction"),
        (begin(0x2000), "within another"),
    ],
)
def test_what_is_damaged_is_an_error_with_its_place(message: bytes, reason: str) -> None:
    decoder = Decoder(lambda _: True)
    with pytest.raises(FatalConnectorError, match=rf"damaged at 0/[0-9A-F]+: .*{reason}"):
        decoder.decode([*STREAM[:3], message])


@pytest.mark.sampled
@given(st.data())
@settings(max_examples=examples(10_000 if only_full("whole") else 2_000))
def test_damaged_messages_are_an_error_or_what_the_plain_decoder_reads(data: st.DataObject) -> None:
    messages = [bytearray(message) for message in STREAM]
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(messages) - 1))
        message = messages[number]
        match data.draw(st.sampled_from("bbbbclds")):
            case "b" if message:
                odd = st.sampled_from([0, 1, 2, 255, *b"KONntubIUDTRBC"])
                message[data.draw(st.integers(0, len(message) - 1))] = data.draw(odd | st.integers(0, 255))
            case "c":
                del message[data.draw(st.integers(0, len(message))) :]
            case "l":
                message += data.draw(st.binary(min_size=1, max_size=9))
            case "d":
                del messages[number]
            case "s":
                messages.insert(data.draw(st.integers(0, len(messages))), message)
        if not messages:
            return
    stream = list(map(bytes, messages))
    reference = Reference()
    try:
        expected = reference.decode(stream)
    except (ValueError, LookupError, struct.error):
        expected = None
    decoder, cut = Decoder(lambda _: True), data.draw(st.integers(0, len(stream)))
    try:
        found = changes_of([*decoder.decode(stream[:cut])]) + changes_of(decoder.decode(stream[cut:]))
    except FatalConnectorError:
        assert expected is None
        return
    assert expected is not None
    assert sorted_changes(found) == sorted_changes(expected)
    assert decoder.position == reference.position
