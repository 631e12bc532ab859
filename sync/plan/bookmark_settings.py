"""Settings of one stream that say where reading goes on: bookmarks, lookback, files that were read. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from syncblocks.connectors.arrow.type_names import type_text
from syncblocks.connectors.incremental.bookmarks import can_look_back, has_order
from syncblocks.connectors.read_spec import ChangedFiles, Condition, NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import FILE_MODIFIED, Stream

from ..config.deletes import Deletes
from .selected_stream import Failer, is_disposition_said

_OWN_BOOKMARK = "the source keeps its own bookmark, and decides by itself which records it sends"


def bookmarks_of(
    stream: Stream, settings: Mapping[str, Any], kept: Sequence[str], method: ReplicationMethod, fail: Failer
) -> tuple[str, ...]:
    """Return the bookmark properties of an INCREMENTAL stream; of a FULL_TABLE stream none."""
    if method is not ReplicationMethod.INCREMENTAL:
        return ()
    configured = settings.get("bookmark_properties") or ()
    if not configured and stream.keeps_own_bookmark:
        return tuple(name for name in stream.read.bookmark_properties if name in kept)
    if not configured:
        raise fail(
            "bookmark_properties", "INCREMENTAL needs bookmark_properties: columns that only grow", kept, alone=True
        )
    for name in configured:
        if name not in kept:
            raise fail("bookmark_properties", f"{name!r} is no column of the stream, or is excluded", kept, name)
        field = stream.schema.field(name)
        if not stream.keeps_own_bookmark and not has_order(field):
            ordered = [column for column in kept if has_order(stream.schema.field(column))]
            text = f"values of column {name!r} ({type_text(field.type)}) cannot be ordered"
            raise fail("bookmark_properties", text, ordered)
    return tuple(configured)


def is_by_files(stream: Stream, settings: Mapping[str, Any], fail: Failer) -> bool:
    """Tell whether an INCREMENTAL stream reads the files that are new."""
    names = settings.get("bookmark_properties") or ()
    if not stream.has_files or FILE_MODIFIED not in names:
        return False
    if len(names) > 1:
        raise fail(
            "bookmark_properties", f"{FILE_MODIFIED} stands alone: it means that files are read as a whole", alone=True
        )
    for key, why in (
        ("lookback", "every new or changed file is read, whatever its time"),
        ("null_bookmarks", "files have no records without a bookmark"),
    ):
        if settings.get(key) is not None:
            raise fail(key, f"is not for bookmark_properties: [{FILE_MODIFIED}]: {why}", alone=True)
    return True


def changed_files_of(stream: Stream, settings: Mapping[str, Any], disposition: str, fail: Failer) -> ChangedFiles:
    """Return what a stream by new files does with a file that has changed."""
    said = settings.get("changed_files")
    if not stream.read.tracks_files:
        if said is not None:
            raise fail(
                "changed_files", f"`changed_files` needs INCREMENTAL with bookmark_properties: [{FILE_MODIFIED}] only"
            )
        return ChangedFiles.FAIL
    if disposition in ("merge", "replace_range", "history"):
        if said == "append":
            raise fail(
                "changed_files",
                f"{disposition} replaces the records of a changed file: leave it out, or use `ignore`",
                alone=is_disposition_said(settings, stream.read.method),
            )
        return ChangedFiles.IGNORE if said == "ignore" else ChangedFiles.READ
    return {"append": ChangedFiles.READ, "ignore": ChangedFiles.IGNORE}.get(said or "", ChangedFiles.FAIL)


def null_bookmarks_of(
    stream: Stream, settings: Mapping[str, Any], disposition: str, method: ReplicationMethod, fail: Failer
) -> NullBookmarks:
    """Return what becomes of records whose bookmark is NULL."""
    configured = settings.get("null_bookmarks")
    if configured is None or method is not ReplicationMethod.INCREMENTAL:
        return NullBookmarks.FAIL
    if stream.keeps_own_bookmark:
        raise fail("null_bookmarks", _OWN_BOOKMARK)
    if configured == "always" and disposition == "append":
        raise fail(
            "null_bookmarks",
            "`always` reads records again in every run, and `append` would double them: merge by keys",
            alone=is_disposition_said(settings, stream.read.method),
        )
    return NullBookmarks(configured)


def lookback_of(
    stream: Stream, settings: Mapping[str, Any], disposition: str, bookmarks: Sequence[str], fail: Failer
) -> float | None:
    """Return from how far below the bookmark an INCREMENTAL stream reads again."""
    lookback: float | None = settings.get("lookback")
    if lookback is None or (not bookmarks and not stream.keeps_own_bookmark):
        return None
    if stream.keeps_own_bookmark:
        raise fail("lookback", _OWN_BOOKMARK)
    if disposition == "append":
        raise fail(
            "lookback",
            "it reads records again in every run, and `append` would double them: merge by keys",
            alone=is_disposition_said(settings, stream.read.method),
        )
    kind = stream.schema.field(bookmarks[0]).type
    if not can_look_back(kind):
        raise fail("lookback", f"bookmark property {bookmarks[0]!r} is {kind}, which is neither a time nor a number")
    return lookback


def is_above(
    stream: Stream, settings: Mapping[str, Any], bookmarks: Sequence[str], lookback: float | None, fail: Failer
) -> bool:
    """Tell whether only records above the bookmark are read."""
    operators: Mapping[str, str] = settings.get("bookmark_property_operators") or {}
    key = "bookmark_property_operators"
    if not operators or (not bookmarks and not stream.keeps_own_bookmark):
        return False
    if stream.keeps_own_bookmark:
        raise fail(key, _OWN_BOOKMARK)
    for name in operators:
        if name not in bookmarks:
            raise fail(key, f"{name!r} is not one of the bookmark_properties", bookmarks, name, alone=True)
    found = {operators.get(name, ">=") for name in bookmarks}
    if len(found) > 1:
        raise fail(key, f"{', '.join(bookmarks)} are compared together: give all of them the same operator", alone=True)
    if found == {">"} and lookback is not None:
        raise fail(key, '">" and `lookback` contradict each other: it reads again from below the bookmark', alone=True)
    return found == {">"}


def bookmark_start_of(
    stream: Stream, settings: Mapping[str, Any], bookmarks: Sequence[str], fail: Failer
) -> Condition | None:
    """Return from where a query that says `:bookmark` is read without a bookmark; None: it does not say it."""
    start = settings.get("bookmark_start")
    if not stream.is_query_bounded:
        if start is not None:
            raise fail(
                "bookmark_start",
                "`bookmark_start` needs a `query` with `:bookmark`: leave it out",
                alone=True,
            )
        return None
    if not bookmarks:
        raise fail(
            "query",
            "`:bookmark` stands for a value of the first of `bookmark_properties`, and FULL_TABLE has none: say "
            "`replication_method: INCREMENTAL`, or write the value",
            alone=True,
        )
    deletes: Deletes | None = settings.get("deletes")
    if deletes is not None and deletes.mode != "ignore":
        raise fail(
            "deletes",
            "compares all keys of the source, and a query with `:bookmark` has only those since its start",
            alone=True,
        )
    if start is None:
        raise fail(
            "bookmark_start",
            f"is missing: the query says `:bookmark`; say which value of {bookmarks[0]!r} stands there as long as "
            'there is no bookmark, as in `bookmark_start: "2024-01-01"`',
            alone=True,
        )
    from syncblocks.connectors.filters import condition_of  # a pipeline without filters spares the import

    try:
        return condition_of(stream.schema.field(bookmarks[0]), ">=", (start,))
    except ValueError as error:
        kind = type_text(stream.schema.field(bookmarks[0]).type)
        raise fail("bookmark_start", f"{start!r} is not a value of {bookmarks[0]!r} ({kind}): {error}") from error
