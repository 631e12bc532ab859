"""Settings of a stream that depend on its columns, in one table: what they name, and what does not go with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Any

from msgspec import Struct

from syncblocks.connectors.read_spec import ReplicationMethod

from ..config.latest import LatestBy
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
    """One setting of a stream that says nothing if nobody knows the stream's columns."""

    masking: Masking = Masking.ANY
    #: A column that it names and the source does not have is a mistake in the file, which is told with its place.
    is_looked_up: bool = False
    #: It is a mapping from columns: the place of a mistake is the column in it.
    is_mapping: bool = False
    #: Write dispositions that it is for; empty: all.
    dispositions: tuple[str, ...] = ()
    #: Why it is for no other `{disposition}`.
    use: str = ""
    #: Setting -> a value of it that does not go with this one, and why.
    excludes: Mapping[str, tuple[Any, str]] = {}


OPTIONS: Mapping[str, Option] = {
    "key_properties": Option(masking=Masking.HASHED, is_looked_up=True),
    "unique_constraints": Option(
        masking=Masking.HASHED,
        is_looked_up=True,
        dispositions=("merge",),
        use="`unique_constraints` say by which columns records are merged, and the stream has "
        "`write_disposition: {disposition}`: take one of them out",
    ),
    "bookmark_properties": Option(masking=Masking.NONE, is_looked_up=True),
    "range_column": Option(masking=Masking.NONE),
    "latest_by": Option(
        masking=Masking.NONE,
        is_looked_up=True,
        dispositions=("merge", "history", "replace_range"),
        use="says which record of a key counts, and `write_disposition: {disposition}` has no use for it: leave it "
        "out, or write merge, history or replace_range",
        excludes={
            "unique_conflict_method": ("IGNORE", "it keeps the existing record even if another one is newer"),
            "valid_from": ("bookmark", "there each record is a version, ordered by its time"),
            "fill_new_columns": (True, "a value could be written into a newer record"),
        },
    ),
    "deleted_when": Option(
        masking=Masking.NONE,
        is_looked_up=True,
        is_mapping=True,
        dispositions=("merge",),
        use="deletes records of the table by their keys, which `write_disposition: {disposition}` does not: write "
        "merge, or leave such records out with `where`",
        excludes={"unique_conflict_method": ("IGNORE", "that keeps what is there")},
    ),
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
    "valid_from": Option(
        dispositions=("history",),
        use="is for `write_disposition: history`, and this stream is written by {disposition}",
    ),
}


def columns_of(said: Any) -> Iterator[str]:
    """Yield the columns that a setting names: alone, in a list, as keys, or in conditions."""
    said = said.column if isinstance(said, LatestBy) else said
    for each in (said,) if isinstance(said, str) else said or ():
        yield each if isinstance(each, str) else each.column


def check_options(settings: Mapping[str, Any], disposition: str, method: ReplicationMethod, fail: Failer) -> None:
    """Refuse settings that have no use for how their stream is written, or that exclude each other.

    Args:
        settings: of the stream's entries in the file, merged.
        disposition: how it is written.
        method: how it is read.
        fail: makes the error of a setting.

    Raises:
        ConfigError: see above.
    """
    for name, option in OPTIONS.items():
        if not settings.get(name):
            continue
        if option.dispositions and disposition not in option.dispositions:
            raise fail(name, option.use.format(disposition=disposition), alone=is_disposition_said(settings, method))
        for other, (value, why) in option.excludes.items():
            if settings.get(other) == value:
                shown = "true" if value is True else value
                raise fail(name, f"`{name}` and `{other}: {shown}` exclude each other: {why}", alone=True)


__all__ = ["OPTIONS", "Masking", "Option", "check_options", "columns_of"]
