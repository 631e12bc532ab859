"""Which column of its table each column of a change is, and what has become of a table's columns since a run.

The log has no DDL and no numbers of columns. A change has the names that its table's columns had then, in the order of
the columns' numbers, and no number is given twice. So a change that lies between what the ledger noted and what the
catalog says is understood from both, or is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ...errors import FatalConnectorError
from ...log_based import DELETES, plain_stream
from ...stream import Stream
from ..type_names import Name
from ..widening import INTEGERS, widen
from .messages import Relation

#: Number and modifier of a type -> its name.
TypeText = Callable[[int, int], str]

#: Types of texts that no length ends.
_UNBOUNDED = ("text", "character varying")

_WIDENED = (*INTEGERS, "numeric", "real", "character varying", "bit varying")
_MOMENTS = ("time", "interval")


class TableFacts(Struct, frozen=True, kw_only=True):
    """What the catalog says of a table now."""

    oid: int
    #: Quoted, with its schema.
    name: str
    kind: str
    is_permanent: bool
    is_owned: bool
    identity: str
    primary_key: str | None
    has_identity_index: bool
    unique_index: str | None
    #: Column -> its number, the number of its type, and its modifier; without generated ones, which the log lacks.
    columns: Mapping[str, tuple[int, int, int]]
    #: Columns whose values may be stored apart: the log leaves such a value out while it does not change.
    large: frozenset[str]
    #: Generated column -> its number.
    generated: Mapping[str, int]
    #: Column -> a mark that changes with its definition. `None` if a rewrite of the table changes the mark as well.
    versions: Mapping[str, str | None]
    #: Columns that the role may not read.
    unreadable: frozenset[str]
    #: Columns that have a default, are an identity, or allow no NULL.
    valued: frozenset[str]
    #: Number of the file with the records. A rewrite of the table changes it.
    file: int
    #: Number of a type -> the number and text of each enum label that its values may contain.
    labels: Mapping[int, Mapping[int, str]]
    #: The highest number that a column has had.
    last: int
    #: Numbers of the columns of its replica identity, or with `full` of its primary key.
    key: tuple[int, ...]
    has_children: bool
    #: True if row level security limits the records that the role sees. The log is not limited.
    hides_records: bool


class Found(Struct, frozen=True):
    """The columns of some changes."""

    #: Column of the table now -> its place in the changes.
    places: Mapping[str, int]
    #: Those whose values are of another type than now, and of which one.
    types: Mapping[str, str]


class Columns:
    """The columns of one table between two moments."""

    def __init__(self, stream: Stream, noted: Mapping[str, Any], now: TableFacts, type_text: TypeText) -> None:
        """Take what the ledger noted at the position of the table, and what the catalog says since then."""
        self._stream, self._noted, self._now, self._type_text = stream, noted, now, type_text
        self._names = {*read_names(stream)}
        self._found: dict[Relation, Found] = {}

    def of(self, relation: Relation) -> Found:
        """Find the table's columns in its changes.

        Raises:
            FatalConnectorError: nobody can tell which they are, or values of theirs are not of the type that is read.
        """
        found = self._found.get(relation)
        if found is None:
            found = self._found[relation] = self._look(relation)
        return found

    def _look(self, relation: Relation) -> Found:
        now = self._now.columns
        before = {name: int(number) for name, (number, *_) in self._noted["columns"].items()}
        numbers = {name: number for name, (number, *_) in now.items()}
        names, called = [column.name for column in relation.columns], {number: name for name, number in numbers.items()}
        between = set(range(last_of(self._noted) + 1, self._now.last + 1)) - {*numbers.values()}
        options = _options(names, before, numbers, between - {*self._now.generated.values()})
        if any(not each or (len(each) > 1 and not each.isdisjoint(called)) for each in options):
            raise self._error(
                f"a change in the log has columns ({', '.join(names)}) of which not all can be told: the table was "
                "altered more than once since the last run, or while this one began. Run again; if that does not help,"
            )
        owner = [min(each) for each in options]
        of_key = {number for number, column in zip(owner, relation.columns, strict=True) if column.is_key}
        is_same_key = relation.identity == "f" or of_key == {*self._now.key}
        if relation.identity != self._now.identity or not is_same_key:
            raise self._error("a change in the log has another replica identity than the table has now:")
        places, types = {}, {}
        for place, (number, column) in enumerate(zip(owner, relation.columns, strict=True)):
            name = called.get(number)
            if name is None:
                continue  # dropped since then
            places[name] = place
            if name in self._names and now[name][1:] != (column.type_id, column.modifier):
                types[name] = self._type_text(column.type_id, column.modifier)
                self._demand_wider(name, types[name], self._type_text(*now[name][1:]))
        return Found(places, types)

    def _demand_wider(self, name: str, then: str, now: str) -> None:
        if not is_wider(then, now):
            raise self._error(
                f"column {name!r} is {now} and was {then} in a change of the log, not all of which it holds:"
            )

    def _error(self, text: str) -> FatalConnectorError:
        name = self._stream.name
        text = f"{text} `syncblocks state reset {name}` copies the table anew"
        return FatalConnectorError(text, connector="postgres", has_no_values=True, stream=name)


def _options(
    names: Sequence[str], before: Mapping[str, int], now: Mapping[str, int], between: Collection[int]
) -> list[set[int]]:
    """Return for each column of a change the numbers that it may have.

    Args:
        names: in the order of their numbers.
        before: columns that the ledger noted.
        now: columns of the catalog.
        between: numbers of columns that neither has; such columns may have been added and dropped in between.
    """
    numbers = sorted({*before.values(), *now.values(), *between})
    sure, known = {*before.values()} & {*now.values()}, {*before, *now}

    def fits(name: str, number: int) -> bool:
        is_named = number in (before.get(name), now.get(name))
        return number in between or name not in known or is_named

    def reached(names: Sequence[str], numbers: Sequence[int]) -> list[list[bool]]:
        """Tell for each number of names and of numbers whether the first ones can belong together."""
        found = [[False] * (len(names) + 1) for _ in range(len(numbers) + 1)]
        found[0][0] = True
        for row, number in enumerate(numbers):
            for count in range(len(names) + 1):
                is_taken = count > 0 and found[row][count - 1] and fits(names[count - 1], number)
                found[row + 1][count] = is_taken or (found[row][count] and number not in sure)
        return found

    front, back = reached(names, numbers), reached(names[::-1], numbers[::-1])
    return [
        {
            number
            for row, number in enumerate(numbers)
            if fits(name, number) and front[row][place] and back[len(numbers) - row - 1][len(names) - place - 1]
        }
        for place, name in enumerate(names)
    ]


def read_names(stream: Stream) -> list[str]:
    """Return the columns whose values are read: the stream's, and those of its filter."""
    named = (*plain_stream(stream).schema.names, *(condition.field.name for condition in stream.read.where))
    return list(dict.fromkeys(named))


def is_wider(before: str, after: str) -> bool:
    """Tell whether a type has all values of another one, each with the same text but for `real`."""
    held, new = Name.parse(before), Name.parse(after)
    if before == after or held.is_array or new.is_array:
        return before == after
    if held.base in _UNBOUNDED and after in _UNBOUNDED:
        return True
    return (held.base in _WIDENED or held.base.startswith(_MOMENTS)) and widen(before, after) == after


def last_of(noted: Mapping[str, Any]) -> int:
    """Return the highest number that a column had."""
    return int(noted.get("last") or max((number for number, *_ in noted["columns"].values()), default=0))


def refusals(stream: Stream, noted: Mapping[str, Any], table: TableFacts, type_text: TypeText) -> list[str]:
    """Say what of a table's columns is not as it was, so that changes cannot be read on."""
    found, is_merged = [], bool(stream.locator.get(DELETES))
    was = {number: name for name, (number, *_) in noted["columns"].items()}
    for name in read_names(stream):
        if name not in table.columns:
            continue
        number, *kind = table.columns[name]
        former, *types = noted["columns"].get(was.get(number, ""), (0,))
        if noted["columns"].get(name, (number,))[0] != number or (is_merged and name in noted.get("former", ())):
            found.append(f"{name!r} was the name of another column, which was dropped or renamed")
        elif former and types != kind and not is_wider(then := type_text(*types), now := type_text(*kind)):
            found.append(f"column {name!r} is {now} and was {then}, not all of which it holds")
        elif is_merged and name in stream.key_properties and _is_relabeled(noted, table, kind[0]):
            found.append(f"values of the key {name!r} were renamed by `alter type ... rename value`")
    if noted["identity"] != table.identity or [*noted.get("key", table.key)] != [*table.key]:
        found.append("it has another primary key or replica identity")
    return found


def renamed(stream: Stream, noted: Mapping[str, Any], table: TableFacts) -> dict[str, str]:
    """Return the columns of a merged table that have another name than the ledger noted: new name -> former one."""
    was = {number: name for name, (number, *_) in noted["columns"].items()}
    now = {name: was.get(number, name) for name, (number, *_) in table.columns.items()}
    own = plain_stream(stream).schema.names if stream.locator.get(DELETES) else ()
    return {name: former for name, former in now.items() if name != former and name in own}


def unlogged(stream: Stream, noted: Mapping[str, Any], table: TableFacts) -> list[str]:
    """Describe changes of a table that gave existing records other values without a change in the log."""
    found, was = [], {number: name for name, (number, *_) in noted["columns"].items()}
    is_rewritten, converted = noted.get("file", table.file) != table.file, _converted(stream, noted, table)
    for name in read_names(stream):
        if name not in table.columns:
            continue
        number, kind, modifier = table.columns[name]
        if (former := was.get(number)) is None:
            if number <= last_of(noted):
                found.append(f"column {name!r} was a generated column")
            elif table.versions[name] is None or (is_rewritten and name in table.valued):
                found.append(f"column {name!r} was added with values for existing records")
            continue
        is_retyped = noted["columns"][former][1:] != [kind, modifier]
        if number == converted or (is_rewritten and is_retyped):
            found.append(f"column {name!r} may have got other values by `alter column ... type ... using`")
        if _is_relabeled(noted, table, kind):
            found.append(f"column {name!r} got other values by `alter type ... rename value`")
    return found


def _is_relabeled(noted: Mapping[str, Any], table: TableFacts, kind: int) -> bool:
    """Return true if an enum label that values of a type may contain has been renamed."""
    last, mark = noted.get("labels", {}).get(str(kind), (0, ""))
    return bool(mark) and _mark_of_labels(table.labels.get(kind, {}), last) != mark


def _converted(stream: Stream, noted: Mapping[str, Any], table: TableFacts) -> int | None:
    """Return the number of a column whose values may have been converted within its type, `None` if there is none."""
    # A ledger row of an earlier version lacks these notes.
    if noted.get("file", table.file) == table.file:
        return None
    read, versions = read_names(stream), noted["versions"]
    now = {number: (name, kind) for name, (number, *kind) in table.columns.items()}
    for name, (number, *kind) in sorted(noted["columns"].items(), key=lambda column: column[1]):
        other, present = now.get(number, ("", kind))
        if present != kind:
            return None  # a change of a column's type changes the versions of all later columns too
        if other in read and versions[name] and table.versions[other] not in (None, versions[name]):
            return int(number)
    return None


def _mark_of_labels(labels: Mapping[int, str], last: int) -> str:
    """Return a mark of the labels whose numbers are not above `last`. Later labels have higher numbers."""
    named = [[number, label] for number, label in labels.items() if number <= last]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:8]


def noted_columns(table: TableFacts, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the ledger keeps of a table's columns; `before`: what it has kept, of a table that is read on."""
    gone = {*before.get("former", ()), *before.get("columns", ())} - {*table.columns}
    return {
        "identity": table.identity,
        "key": list(table.key),
        "columns": {name: list(facts) for name, facts in table.columns.items()},
        "last": table.last,
        "former": sorted(gone),
        "file": table.file,
        "versions": {name: table.versions[name] for name in table.columns},
        "labels": {
            str(kind): [max(labels), _mark_of_labels(labels, max(labels))]
            for kind, labels in table.labels.items()
            if kind in {kind for _, kind, _ in table.columns.values()}
        },
    }


__all__ = [
    "Columns",
    "Found",
    "TableFacts",
    "TypeText",
    "is_wider",
    "noted_columns",
    "read_names",
    "refusals",
    "renamed",
    "unlogged",
]
