"""The bytes of a CSV file, whatever its encoding, line ends and delimiter."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from typing import Any, Literal

import pyarrow as pa

from ..errors import FatalConnectorError
from .bad import shown
from .paths import DataFile

_CHUNK_BYTES = 1 << 16
_DELIMITERS = (",", ";", "\t", "|")


class Input(io.RawIOBase):
    """The file's bytes as UTF-8 without a byte order mark; lines can be taken from its front."""

    def __init__(self, file: DataFile, encoding: str, quote: str = "") -> None:
        super().__init__()
        self.file = file
        #: Whether an odd number of quotes was read, lines not counted.
        self.is_quote_open = False
        self._quote = quote.encode()
        self._raw = file.open()
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        self._buffer = b""
        self._is_over = False
        self._fill()
        if self._decoder is None and self._buffer.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise FatalConnectorError(
                f"{file.label}: begins as UTF-16 does; say `config.encoding: utf-16`", key="encoding"
            )
        self._buffer = self._buffer.removeprefix(codecs.BOM_UTF8)

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if not self._buffer:
            self._fill(max(len(target), _CHUNK_BYTES))
        size = min(len(target), len(self._buffer))
        target[:size] = self._buffer[:size]
        if self._quote:
            self.is_quote_open ^= self._buffer.count(self._quote, 0, size) % 2 == 1
        self._buffer = self._buffer[size:]
        return size

    def lines(self) -> Iterator[str]:
        """Yield lines with their ends, taking no byte more than that; what is no UTF-8 comes as lone surrogates."""
        while line := self._line():
            yield line.decode("utf-8", "surrogateescape")

    def is_at_end(self) -> bool:
        while not self._buffer and not self._is_over:
            self._fill()
        return not self._buffer

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()

    def _line(self) -> bytes:
        searched = 0
        while True:
            ends = [place for end in (b"\n", b"\r") if (place := self._buffer.find(end, searched)) >= 0]
            place = min(ends, default=-1)
            if place >= 0 and (
                place + 1 < len(self._buffer) or self._is_over or self._buffer[place : place + 1] == b"\n"
            ):
                is_pair = self._buffer[place : place + 2] == b"\r\n"
                size = place + (2 if is_pair else 1)
            elif self._is_over:
                size = len(self._buffer)
            else:
                searched = place if place >= 0 else len(self._buffer)
                self._fill()
                continue
            line, self._buffer = self._buffer[:size], self._buffer[size:]
            return line

    def _fill(self, size: int = _CHUNK_BYTES) -> None:
        try:
            chunk = self._raw.read(size)
            if self._decoder is not None:
                chunk = self._decoder.decode(chunk, final=not chunk).removeprefix("\ufeff").encode()
                self._is_over = self._is_over or not chunk
            self._is_over = not chunk
            self._buffer += chunk
        except UnicodeError as error:
            raise FatalConnectorError(
                f"{self.file.label}: not encoded as `config.encoding` says: {error}", key="encoding"
            ) from error
        except (OSError, pa.ArrowInvalid) as error:
            raise FatalConnectorError(f"{self.file.label}: cannot be read: {shown(str(error))}") from error


def delimiter_of(line: str, default: str, quote: str) -> str:
    """Return what delimits a file's first line: the default, unless that finds one field and another one more."""

    def count(delimiter: str) -> int:
        row = next(csv.reader([line], delimiter=delimiter, quotechar=quote or None, quoting=_quoting(quote)), [])
        return len(row)

    return max((default, *_DELIMITERS), key=count) if count(default) == 1 else default


def _quoting(quote: str) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE


__all__ = ["Input", "delimiter_of"]
