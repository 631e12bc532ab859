"""Which column of the destination holds which column of the source, and how each pair is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from syncblocks.connectors.capabilities import Capabilities
from syncblocks.connectors.checksums import ComparedColumn, Side, TextForm, compared_columns, no_item
from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.incremental.bookmarks import bookmark_values, is_number_in_text
from syncblocks.connectors.log_based import DELETES
from syncblocks.connectors.protocols import Capability
from syncblocks.connectors.read_spec import NullBookmarks, ReplicationMethod
from syncblocks.connectors.stream import DELETED_AT, Bookmark, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition

from ..plan.plan import Connectors, PlannedStream
from ..plan.reading import computing
from ..session.destination_reader import described
from .checksums import only_columns, system_of
from .latest_records import Ages


class ColumnPairs:
    """The columns of one stream and of its copy in the destination, pair by pair."""

    def __init__(self, connectors: Connectors, planned: PlannedStream, copy: Stream, reader_can: Capabilities) -> None:
        self.notes: list[str] = []
        #: Columns whose values were written as text.
        self._texts = set[str]()
        self._planned = planned
        deletes = planned.policy.deletes
        #: The column of marks that is no column of the stream.
        has_marks = deletes is not None and deletes.is_soft and planned.policy.added.history is None
        has_marks |= planned.stream.locator.get(DELETES) == "soft"
        self._marks = {DELETED_AT} if has_marks else set[str]()
        stream = planned.stream
        self._systems = (system_of(connectors.source_can, stream), system_of(reader_can, copy))
        computes = computing(connectors.source_can, stream), computing(reader_can, copy)
        self._keeps_json = (
            computes[0] is not None and computes[0].keeps_json(),
            computes[1] is not None and computes[1].keeps_json(),
        )
        self._array_items = (
            no_item if computes[0] is None else computes[0].array_item,
            no_item if computes[1] is None else computes[1].array_item,
        )
        self._has_one_null = Capability.HAS_ONE_NULL in reader_can
        self._stream = planned.stream
        # The types of a file's columns are known from what was written, better than from its text.
        assert planned.table.schema is not None
        self._copy = replace(copy, schema=described(copy.schema, planned.table.schema))
        self._names = self._matched(connectors)

    def sides(self, bookmark: Bookmark | None) -> tuple[Side, Side]:
        """Return the source's and the destination's side of the comparison."""
        planned = self._planned
        is_ignored = planned.write.conflict_method is ConflictMethod.IGNORE
        is_merged = planned.write.disposition is WriteDisposition.MERGE
        keys = self._keys()
        pairs = self._pairs()
        if is_merged and is_ignored:
            self.notes.append("unique_conflict_method IGNORE keeps older versions: only keys are compared")
            pairs = [pair for pair in pairs if pair[0].name in self._stream.key_properties]
        has_own_hash = self._systems == ("postgres", "postgres") and all(
            column.form is TextForm.NATIVE for pair in pairs for column in pair
        )
        lefts, rights = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        stream, copy = self._streams(lefts, rights)
        is_incremental = self._stream.read.method is ReplicationMethod.INCREMENTAL
        # Even a bookmark without a value says that the records without a bookmark were read.
        until = bookmark if is_incremental and bookmark else None
        left = Side(
            stream=stream,
            key=tuple(pair[0] for pair in keys),
            columns=tuple(lefts),
            until=until,
            has_own_hash=has_own_hash,
        )
        right = Side(
            stream=copy,
            key=tuple(pair[1] for pair in keys),
            columns=tuple(rights),
            until=self._translated(copy, until),
            has_own_hash=has_own_hash,
        )
        return left, right

    def ages(self, source: Side) -> Ages:
        """Return what says which record of a key counts in the source's side."""
        return Ages(source.columns, self._planned.write.renamed(lambda name: self._own.get(name, "")))

    def key_sides(self) -> tuple[Side, Side]:
        """Return both sides with nothing but their keys, past the bookmark too.

        Raises:
            FatalConnectorError: the sides do not order the key alike, or one of them lacks a column of it.
        """
        keys = self._keys()
        if not keys:
            reason = "; ".join(note for note in self.notes if note.startswith("key column"))
            raise FatalConnectorError(
                f"keys cannot be compared: {reason or 'the stream has no key_properties'}", stream=self._stream.name
            )
        sides = []
        for stream, key in zip((self._stream, self._copy), zip(*keys, strict=True), strict=True):
            narrow = replace(
                stream,
                schema=only_columns(stream.schema, {column.name for column in key}),
                key_properties=tuple(column.name for column in key),
                read=replace(
                    stream.read,
                    bookmark_properties=(),
                    method=ReplicationMethod.FULL_TABLE,
                    null_bookmarks=NullBookmarks.FAIL,
                    lookback=None,
                ),
            )
            has_own_hash = self._systems == ("postgres", "postgres")
            sides.append(Side(stream=narrow, key=key, columns=key, has_own_hash=has_own_hash))
        return sides[0], sides[1]

    def _matched(self, connectors: Connectors) -> dict[str, str]:
        """Map the source's column names to the table's; note columns without a counterpart."""
        added = self._planned.policy.added.names
        arriving = [name for name in self._planned.arriving.schema.names if name not in added]
        self._own = dict(zip(arriving, self._stream.schema.names, strict=True))
        names_columns = connectors.destination_can.names_columns
        if names_columns is None:
            chosen: Mapping[str, str] = {name: name for name in arriving}
        else:
            chosen = names_columns.column_names(arriving, self._planned.table)
        existing = set(self._copy.schema.names)
        folded = {name.casefold(): name for name in existing.difference(chosen.values())}
        names, missing, skipped = {}, [], set[str]()
        planned = {column.name: column for column in self._planned.mapping.columns}
        for name, own in self._own.items():
            found = chosen[name] if chosen[name] in existing else folded.get(name.casefold())
            column = planned.get(name)
            conversion = "" if column is None else column.conversion
            if column is not None and column.is_text:
                self._texts.add(own)
            if conversion and conversion != "text":
                self.notes.append(f"column {own!r} is not compared: on_lossy ({conversion}) changes its values")
                skipped.add(found or "")
            elif found is None:
                missing.append(own)
            else:
                names[own] = found
        if missing:
            self.notes.append(f"not in the destination: {', '.join(missing)}")
        own_columns = {*map(str.casefold, added), *self._marks}
        skipped |= {name for name in self._copy.schema.names if name.casefold() in own_columns}
        extra = [name for name in self._copy.schema.names if name not in names.values() and name not in skipped]
        if extra:
            self.notes.append(f"only in the destination: {', '.join(extra)}")
        return names

    def _pairs(self) -> list[tuple[ComparedColumn, ComparedColumn]]:
        pairs = []
        for own, name in self._names.items():
            pair = self._pair(own, name, is_key=False)
            if isinstance(pair, str):
                self.notes.append(f"column {own!r} is not compared: {pair}")
            else:
                pairs.append(pair)
        return pairs

    def _keys(self) -> list[tuple[ComparedColumn, ComparedColumn]]:
        """Return the key's columns, or none if one of them cannot be compared."""
        if self._planned.write.disposition is WriteDisposition.APPEND:
            return []
        pairs = []
        for own in self._stream.key_properties:
            pair = self._pair(own, self._names[own], is_key=True) if own in self._names else "it is missing"
            if isinstance(pair, str):
                self.notes.append(f"key column {own!r}: {pair}")
                return []
            pairs.append(pair)
        return pairs

    def _pair(self, own: str, name: str, *, is_key: bool) -> tuple[ComparedColumn, ComparedColumn] | str:
        fields = self._stream.schema.field(own), self._copy.schema.field(name)
        return compared_columns(
            *fields,
            systems=self._systems,
            is_key=is_key,
            keeps_json=self._keeps_json,
            is_in_lines=self._has_one_null,
            array_items=self._array_items,
            is_text=own in self._texts,
        )

    def _streams(self, lefts: Sequence[ComparedColumn], rights: Sequence[ComparedColumn]) -> tuple[Stream, Stream]:
        """Return both streams as whole tables with the needed columns."""
        marks = [name for name in self._stream.read.bookmark_properties if name in self._names]
        own = {*(column.name for column in lefts), *self._stream.key_properties, *self._stream.read.bookmark_properties}
        needed = {self._names[name] for name in own if name in self._names}
        is_once = self._stream.read.null_bookmarks is NullBookmarks.ONCE
        stream = replace(
            self._stream,
            schema=only_columns(self._stream.schema, own),
            read=replace(self._stream.read, method=ReplicationMethod.FULL_TABLE),
        )
        copy = replace(
            self._copy,
            schema=only_columns(self._copy.schema, needed),
            read=replace(
                self._copy.read,
                method=ReplicationMethod.FULL_TABLE,
                bookmark_properties=tuple(self._names[name] for name in marks),
                null_bookmarks=NullBookmarks.ONCE if is_once else NullBookmarks.FAIL,
            ),
            # Records without a bookmark: read once, they are compared on neither side; never read, they are extra.
        )
        return stream, copy

    def _is_ordered_alike(self, own: pa.Field, there: pa.Field) -> bool:
        """Tell whether both sides order a bookmark alike: texts depend on a collation."""
        if pa.types.is_string(own.type) or pa.types.is_string(there.type):
            # In files, a number of many digits is an ordinary text.
            return is_number_in_text(own) and is_number_in_text(there) and "duckdb" not in self._systems
        return True

    def _translated(self, copy: Stream, until: Bookmark | None) -> dict[str, Any] | None:
        """Return the bookmark under the copy's names; None if it cannot bound the copy: single records decide."""
        marks = self._stream.read.bookmark_properties
        if until is None or len(copy.read.bookmark_properties) < len(marks):
            return None
        if not all(
            self._is_ordered_alike(self._stream.schema.field(m), copy.schema.field(self._names[m])) for m in marks
        ):
            return None
        bookmark = {self._names[name]: until[name] for name in marks}
        try:
            bookmark_values(copy, bookmark)
            return bookmark
        except ConnectorConfigError:  # the copy has another type
            return None
