"""The format of JSON documents: the elements of an array are read as lines of JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa

from ..arrow.conform import shown
from ..errors import FatalConnectorError
from ..field_facts import with_facts
from .formats import next_chunk
from .json_document import SINGLE, JSONDocument, place_of
from .json_elements import NoDocument, Whole, reason_of
from .jsonl_format import BOM, SAVE, JSONLFormat
from .paths import DataFile, kind_of_text
from .settings import JSONSourceSettings

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = re.compile(rb"\[\s*\{")


class JSONFormat(JSONLFormat):
    """Documents of JSON, each with an array of objects."""

    suffix = "json"
    suffixes: Sequence[str] = (".json",)
    has_own_lines = False

    def __init__(self, settings: JSONSourceSettings) -> None:
        self._document = settings
        super().__init__(self._document)

    def schema(self, files: Sequence[DataFile], budget_bytes: int) -> pa.Schema:
        """Return the columns; say where a document that is one record itself has an array of objects."""
        schema = super().schema(files, budget_bytes)
        arrays = set() if self._document.records else {name for file in files[:1] for name in self._arrays(file)}
        return pa.schema([_noticed(field) if field.name in arrays else field for field in schema])

    def _arrays(self, file: DataFile) -> list[str]:
        """Return the names of a document's arrays of objects, if it is an object."""
        for place, block in self._blocks(file):
            members = _members.decode(block) if place == SINGLE else {}
            return [name for name, value in members.items() if _OBJECTS.match(bytes(value))]
        return []

    def _blocks(self, file: DataFile, whole: Whole | None = None) -> Iterator[tuple[int, Any]]:
        with file.open() as opened:
            chunks = _chunks(file, opened)
            document = JSONDocument(chunks, file.label, self._document.records, self.record_bytes, whole)
            yield from document.blocks()

    def _place(self, file: DataFile, line: int) -> str:
        return place_of(file.label, self._document.records, line)

    def _malformed(self, file: DataFile, line: int, text: bytearray, error: Exception) -> FatalConnectorError:
        if isinstance(error, msgspec.ValidationError):
            found = shown(text.strip().decode(errors="replace"))
            where = self._place(file, line)
            return NoDocument(
                f"{where} is {found}, not an object: records are objects",
                key="records",
                without_values=f"{where} is no object",
            )
        where = f"{self._place(file, line)}: broken JSON"
        return NoDocument(f"{where}: {reason_of(error, text)}", key="path", without_values=where)


def _chunks(file: DataFile, opened: BinaryIO) -> Iterator[bytes]:
    chunk = next_chunk(file, opened).removeprefix(BOM)
    if said := kind_of_text(chunk, SAVE):
        raise NoDocument(f"{file.label}: is not a JSON document{said}", key="path", has_no_values=True)
    while chunk:
        yield chunk
        chunk = next_chunk(file, opened)


def _noticed(field: pa.Field) -> pa.Field:
    said = (
        f"column {field.name!r} is an array of objects in a document that is read as one record: `records: "
        f"{field.name}` of the source reads each object as a record"
    )
    return with_facts(field, notice=said)
