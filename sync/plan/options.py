"""Two tables of a stream's settings: which depend on its columns, and which cannot be used together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Any

from msgspec import Struct
from msgspec.structs import astuple

from syncblocks.connectors.read_spec import ReplicationMethod

from ..config.latest_by import LatestBy
from .selected_stream import Failer, is_disposition_said


class Masking(Enum):
    """What a mask may do to the columns that a setting names."""

    #: They may be hidden in any way.
    ANY = auto()
    #: They identify a record: a mask must not make one of two.
    HASHED = auto()
    #: They have to be compared, parsed or shown as they are.
    NONE = auto()


class Option(Struct, frozen=True, kw_only=True):
    """A setting of a stream that has no meaning while the stream's columns are unknown."""

    masking: Masking = Masking.ANY
    #: True if a column that the setting names must exist in the source. The error shows the place in the file.
    is_looked_up: bool = False
    #: True if the setting is a mapping with columns as keys. The error shows the place of the column.
    is_mapping: bool = False


OPTIONS: Mapping[str, Option] = {
    "key_properties": Option(masking=Masking.HASHED, is_looked_up=True),
    "unique_constraints": Option(masking=Masking.HASHED, is_looked_up=True),
    "bookmark_properties": Option(masking=Masking.NONE, is_looked_up=True),
    "range_column": Option(masking=Masking.NONE),
    "latest_by": Option(masking=Masking.NONE, is_looked_up=True),
    "deleted_when": Option(masking=Masking.NONE, is_looked_up=True, is_mapping=True),
    "checks": Option(masking=Masking.NONE),
    "warn_checks": Option(masking=Masking.NONE),
    "types": Option(masking=Masking.NONE, is_looked_up=True, is_mapping=True),
    "decode": Option(masking=Masking.NONE, is_looked_up=True, is_mapping=True),
    "columns": Option(),
    "where": Option(),
    "bookmark_property_operators": Option(),
    "bookmark_start": Option(),
    "replication_method": Option(),
    "null_bookmarks": Option(),
    "lookback": Option(),
    "changed_files": Option(),
    "valid_from": Option(),
}


class Exclusion(Struct, frozen=True):
    """Another setting that a setting cannot be used with."""

    setting: str
    #: Values of the other setting that are excluded. Empty: all values.
    values: tuple[Any, ...]
    why: str


class Restriction(Struct, frozen=True, kw_only=True):
    """What a setting can be used with. `{disposition}` and `{method}` in the texts stand for those of the stream."""

    #: Replication methods that the setting is for. Empty: all.
    methods: tuple[str, ...] = ()
    #: The error for another method.
    of_method: str = ""
    #: Write dispositions that the setting is for. Empty: all.
    dispositions: tuple[str, ...] = ()
    #: The error for another disposition.
    of_disposition: str = ""
    excludes: tuple[Exclusion, ...] = ()


RESTRICTIONS: Mapping[str, Restriction] = {
    "unique_constraints": Restriction(
        dispositions=("merge",),
        of_disposition="`unique_constraints` say by which columns records are merged, and the stream has "
        "`write_disposition: {disposition}`: take one of them out",
    ),
    "latest_by": Restriction(
        dispositions=("merge", "history", "replace_range"),
        of_disposition="says which record of a key counts, and `write_disposition: {disposition}` has no use for it: "
        "leave it out, or write merge, history or replace_range",
        excludes=(
            Exclusion("unique_conflict_method", ("IGNORE",), "it keeps the existing record even if another is newer"),
            Exclusion("valid_from", ("bookmark",), "there each record is a version, ordered by its time"),
            Exclusion("fill_new_columns", (True,), "a value could be written into a newer record"),
        ),
    ),
    "deleted_when": Restriction(
        dispositions=("merge",),
        of_disposition="deletes records of the table by their keys, which `write_disposition: {disposition}` does not: "
        "write merge, or leave such records out with `where`",
        excludes=(Exclusion("unique_conflict_method", ("IGNORE",), "that keeps what is there"),),
    ),
    "valid_from": Restriction(
        dispositions=("history",),
        of_disposition="is for `write_disposition: history`, and this stream is written by {disposition}",
    ),
    "limit": Restriction(
        excludes=(
            Exclusion("deletes", (), "records that are not read would count as deleted"),
            Exclusion(
                "write_disposition", ("history", "replace_range"), "records that are not read would count as deleted"
            ),
        ),
    ),
    "min_records": Restriction(
        methods=("FULL_TABLE",),
        of_method="is for FULL_TABLE: {method} reads new records only, which may be none, and commits several times",
    ),
}


def columns_of(said: Any) -> Iterator[str]:
    """Yield the columns that a setting names: alone, in a list, as keys, or in conditions."""
    said = said.column if isinstance(said, LatestBy) else said
    for each in (said,) if isinstance(said, str) else said or ():
        yield each if isinstance(each, str) else each.column


def check_restrictions(settings: Mapping[str, Any], disposition: str, method: ReplicationMethod, fail: Failer) -> None:
    """Refuse settings that cannot be used with the stream's method, its disposition or another setting.

    Args:
        settings: of the stream's entries in the file, merged, without settings that have no effect.
        disposition: how the stream is written.
        method: how the stream is read.
        fail: makes the error of a setting.

    Raises:
        ConfigError: see above.
    """
    chosen = {**settings, "write_disposition": disposition}
    for name, rule in RESTRICTIONS.items():
        if settings.get(name) in (None, (), [], {}):
            continue
        if rule.methods and method not in rule.methods:
            raise fail(name, rule.of_method.format(method=method), alone=True)
        if rule.dispositions and disposition not in rule.dispositions:
            text = rule.of_disposition.format(disposition=disposition)
            raise fail(name, text, alone=is_disposition_said(settings, method))
        for other, values, why in map(astuple, rule.excludes):
            value = chosen.get(other)
            if value in values or (value and not values):
                shown = f"{other}: {'true' if value is True else value}" if values else other
                raise fail(name, f"`{name}` and `{shown}` exclude each other: {why}", alone=True)


__all__ = ["OPTIONS", "Masking", "Option", "check_restrictions", "columns_of"]
