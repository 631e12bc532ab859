"""What is known of a column besides its name and type: Arrow's field metadata carry it, by keys of this file alone."""

from __future__ import annotations

import json
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa

from .struct_helpers import replace


class TypeOrigin(StrEnum):
    """Who says a column's type."""

    SOURCE = "source"
    #: Somebody, for a column whose values are texts of a file.
    DECLARED = "declared"
    #: The values seen, so that a table that is there decides it.
    GUESSED = "guessed"
    #: The table's column, for one that was guessed.
    TABLE = "table"


class Precision(StrEnum):
    """What is known of the digits of a column's numbers, which are without a limit unless it is `KNOWN`."""

    KNOWN = "known"
    #: They are read as texts; their type is decided when they are first loaded.
    UNDECIDED = "undecided"
    #: As `UNDECIDED`, and no double holds all of them, so that a column whose type nobody decides is a text.
    INEXACT = "inexact"
    #: As `UNDECIDED`, and the plan has the source look at all of them before the records are read, and yield the stream
    #: with the type that holds them.
    LOOK = "look"
    #: They are decimals; one with more digits makes the column wider, up to 38 digits.
    WIDENS = "widens"


class FieldFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a column; what is not known has its default, and no metadata."""

    #: The system's own name of its type, and whose name that is; empty: there is none.
    native_type: str = ""
    native_system: str = ""
    #: Of a column of a table, where `native_type` is a domain: the type that the domain is of.
    base_type: str = ""
    #: Of PostgreSQL: as what its values are read, `text`, `json`, or the `base` type of a domain; empty: as they are.
    read_as: str = ""
    #: Of PostgreSQL: name of the (base) type with its schema.
    type_name: str = ""
    #: Of a field that is ingested: the type of its column, in the database's words.
    column_type: str = ""
    #: NULL may come, which did not before, so that its column ceases to refuse NULL.
    relaxed: bool = False
    #: Of a column of a table: a record that is inserted must bring a value for it.
    needed: bool = False
    #: Of texts: a column of the table whose type does not hold texts becomes text.
    becomes_text: bool = False
    #: True if the table's column is a text of only NULL that gets this type, since its first values arrive.
    first_values: bool = False
    #: Of a column of a table: the table computes it.
    computed: bool = False
    #: So does the table that a replacement leaves.
    stays_computed: bool = False
    origin: TypeOrigin = TypeOrigin.SOURCE
    #: Of a type that was guessed: no value was seen.
    unseen: bool = False
    #: Of `GUESSED`: all numbers seen are whole, though some are written with a fraction (`1.0`).
    whole: bool = False
    #: Of `GUESSED`: the texts seen are all dates or times without a zone, and some are each.
    moments: bool = False
    precision: Precision = Precision.KNOWN
    #: What a person should know of the column, as a sentence; why it is a text.
    notice: str = ""
    #: Where its values are within the record's objects: names, down to the value; empty: nobody has said it.
    path: tuple[str, ...] = ()
    #: Labels of an enum that is read as text.
    labels: tuple[str, ...] = ()
    #: The source does not know the column's type, and reads its values as text.
    unknown_type: bool = False
    #: Its name is lower case in a system that folds names to upper case: it must be quoted.
    quoted: bool = False
    #: Of files: its values are the paths of the files that the records are from.
    of_file: bool = False
    #: Of files: its values stand in their paths, which messages and ledgers show.
    in_path: bool = False
    #: Of files: it is the record's number in its file, not a column of the file that has such a name.
    is_row: bool = False
    #: Of texts of JSON: numbers arrive without exponent and trailing zeros, not as they are written.
    plain_numbers: bool = False
    #: Of CSV: its name in the header, where a column before it has that name.
    header_name: str = ""

    @property
    def is_of_text(self) -> bool:
        """Tell whether its values are texts of a file, which `types` may take for anything."""
        return self.unseen or self.origin in (TypeOrigin.GUESSED, TypeOrigin.DECLARED)

    @property
    def is_undecided(self) -> bool:
        """Tell whether the type of its numbers is decided when they are first loaded."""
        return self.precision in _UNDECIDED


#: The keys and values reach files, workers and the state of runs: none may change. A guess without a value has a key of
#: its own.
_ORIGINS = {TypeOrigin.DECLARED: b"said", TypeOrigin.TABLE: b"decided", TypeOrigin.GUESSED: b"guessed"}
_UNSEEN, _WHOLE, _MOMENTS = b"unseen", b"whole", b"moments"

_PRECISION, _WIDENS = b"undecided", b"widens"
_UNDECIDED = {Precision.UNDECIDED: b"1", Precision.INEXACT: b"inexact", Precision.LOOK: b"look"}

_COMPUTED, _STAYS = b"computed", b"kept"

#: Fact -> the key that says so, and its value.
_FLAGS = {
    "relaxed": (b"relaxed", b""),
    "needed": (b"needed", b""),
    "becomes_text": (b"becomes_text", b""),
    "first_values": (b"first_values", b""),
    "unknown_type": (b"unknown_type", b"1"),
    "quoted": (b"is_quoted", b"1"),
    "of_file": (b"of_file", b""),
    "in_path": (b"in_path", b"1"),
    "is_row": (b"is_row", b""),
    "plain_numbers": (b"plain_numbers", b""),
}

#: Fact of several names -> the key of a list in JSON.
_NAMES = {"path": b"flattened", "labels": b"enum_labels"}

#: Fact that is a text -> its key.
_TEXTS = {
    "native_type": b"native_type",
    "native_system": b"native_system",
    "base_type": b"base_type",
    "header_name": b"header_name",
    "read_as": b"read_as",
    "type_name": b"type_name",
    "column_type": b"column_type",
    "notice": b"notice",
}

_KEYS = frozenset(
    {
        *(key for key, _ in _FLAGS.values()),
        *_NAMES.values(),
        *_TEXTS.values(),
        *_ORIGINS.values(),
        _UNSEEN,
        _PRECISION,
        _WIDENS,
        _COMPUTED,
    }
)

_NOTHING = FieldFacts()


def facts_of(field: pa.Field) -> FieldFacts:
    """Return what is known of a column."""
    metadata = field.metadata
    # What else a file has there, which may be long, is not remembered.
    return _decoded(tuple(item for item in metadata.items() if item[0] in _KEYS)) if metadata else _NOTHING


def with_facts(field: pa.Field, facts: FieldFacts | None = None, /, **changes: Any) -> pa.Field:
    """Return the column with other facts; metadata of others stay.

    Args:
        field: the column.
        facts: in place of those that it has; None: those.
        changes: of the facts, by name.
    """
    before = facts_of(field)
    new = replace(before if facts is None else facts, **changes)
    if new == before:
        return field
    held, wanted = _encoded(before), _encoded(new)
    kept = {key: value for key, value in (field.metadata or {}).items() if key in wanted or key not in _KEYS}
    changed = {key: value for key, value in wanted.items() if held.get(key) != value}
    return field.with_metadata({**kept, **changed})


@lru_cache(maxsize=16_384)
def _decoded(metadata: tuple[tuple[bytes, bytes], ...]) -> FieldFacts:
    held = dict(metadata)
    found: dict[str, Any] = {name: True for name, (key, _) in _FLAGS.items() if key in held}
    found |= {name: held[key].decode(errors="replace") for name, key in _TEXTS.items() if key in held}
    found |= {name: _names(held[key]) for name, key in _NAMES.items() if key in held}
    unseen = _UNSEEN in held
    guessed = TypeOrigin.GUESSED if unseen else TypeOrigin.SOURCE
    if _PRECISION in held:
        undecided = (kind for kind, value in _UNDECIDED.items() if value == held[_PRECISION])
        found["precision"] = next(undecided, Precision.UNDECIDED)
    elif _WIDENS in held:
        found["precision"] = Precision.WIDENS
    return FieldFacts(
        origin=next((origin for origin, key in _ORIGINS.items() if key in held), guessed),
        unseen=unseen,
        whole=held.get(_ORIGINS[TypeOrigin.GUESSED]) == _WHOLE,
        moments=held.get(_ORIGINS[TypeOrigin.GUESSED]) == _MOMENTS,
        computed=_COMPUTED in held,
        stays_computed=held.get(_COMPUTED) == _STAYS,
        **found,
    )


@lru_cache(maxsize=16_384)
def _encoded(facts: FieldFacts) -> dict[bytes, bytes]:
    known = {name: value for name, value in msgspec.structs.asdict(facts).items() if value}
    found = {key: value for name, (key, value) in _FLAGS.items() if name in known}
    found |= {key: known[name].encode() for name, key in _TEXTS.items() if name in known}
    found |= {key: json.dumps(known[name]).encode() for name, key in _NAMES.items() if name in known}
    if facts.unseen:
        found[_UNSEEN] = b"1"
    if facts.origin in _ORIGINS and not (facts.unseen and facts.origin is TypeOrigin.GUESSED):
        seen = _WHOLE if facts.whole else _MOMENTS if facts.moments else b"1"
        found[_ORIGINS[facts.origin]] = seen if facts.origin is TypeOrigin.GUESSED else b"1"
    if facts.is_undecided:
        found[_PRECISION] = _UNDECIDED[facts.precision]
    elif facts.precision is Precision.WIDENS:
        found[_WIDENS] = b"1"
    if facts.computed:
        found[_COMPUTED] = _STAYS if facts.stays_computed else b""
    return found


def _names(text: bytes) -> tuple[str, ...]:
    """Return a list in JSON; empty: it is none, such as that of a file that has the key for something else."""
    try:
        return msgspec.json.decode(text, type=tuple[str, ...])
    except msgspec.MsgspecError:
        return ()


def is_unseen(field: pa.Field) -> bool:
    """Tell whether a column's type was guessed without a value: an existing table keeps its own type."""
    return bool(pa.types.is_null(field.type)) or facts_of(field).unseen


def yields_to_table(field: pa.Field) -> bool:
    """Tell whether an existing column keeps its type, whatever values of the field may need."""
    return is_unseen(field) or facts_of(field).origin is TypeOrigin.TABLE


def notices_of(schema: pa.Schema) -> tuple[str, ...]:
    """Return what a person should know of some columns."""
    return tuple(notice for field in schema if (notice := facts_of(field).notice))


__all__ = [
    "FieldFacts",
    "Precision",
    "TypeOrigin",
    "facts_of",
    "is_unseen",
    "notices_of",
    "with_facts",
    "yields_to_table",
]
