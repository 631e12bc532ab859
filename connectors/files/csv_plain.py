"""Make plain CSV of the bytes of a CSV file: no comments, no blanks around values, a delimiter of one character.

A comment becomes an empty line, so that lines keep their numbers. What is within quotes stays as it is.
"""

from __future__ import annotations

import re

from ..errors import FatalConnectorError

#: Stands for a delimiter of several characters: the separator of units, U+001F.
SEPARATOR = "\x1f"

#: Most bytes of a line, which is held until its end is known.
_MOST_BYTES = 16 << 20


class PlainCSV:
    """Makes plain CSV of one file, piece by piece; a piece ends with a line end, which may be within quotes."""

    def __init__(self, *, delimiter: str, quote: str, trim: bool, comment: str, label: str, line: int) -> None:
        """Begin at the start of a record.

        Args:
            delimiter: as it is written.
            quote: one character; empty: no field is quoted.
            trim: leaves out blanks and tabs around values.
            comment: what a comment begins with; empty: there are none.
            label: of the file.
            line: number of the first line.
        """
        self._delimiter, self._quote, self._is_trimmed = delimiter.encode(), quote.encode(), trim
        self._separator = SEPARATOR.encode() if len(delimiter) > 1 else self._delimiter
        self._label, self._line = label, line
        self._held: list[bytes] = []
        self._is_quoted = False
        blank = b" " if "\t" in delimiter else rb"[ \t]"
        blanks = blank + b"*+" if trim else b""
        start = rb"(?<![^\r\n])"
        mark, between = re.escape(self._quote), re.escape(self._separator)
        comments = rb"%b%b%b[^\r\n]*+" % (start, blanks, re.escape(comment.encode())) if comment else b"(?!)"
        self._comments = re.compile(comments) if comment else None
        #: A field in quotes (its blanks are not captured), a comment, or a quote that means nothing.
        quoted = rb"(?:%b|(?<=%b))%b(%b(?:[^%b]++|%b%b)*+(?:%b|\Z))%b|%b|(%b)"
        marks = (start, re.escape(self._delimiter), blanks, *[mark] * 5, blanks, comments, mark)
        self._quotes = re.compile(quoted % marks if quote else comments)
        self._blanks_before = re.compile(rb"%b++(?=%b|[\r\n]|\Z)" % (blank, between))
        self._blanks_after = re.compile(rb"(?:%b|(?<=%b))%b++" % (start, between, blank))

    def made(self, chunk: bytes, *, is_last: bool) -> bytes:
        """Take the next bytes and return what is plain CSV by now, perhaps nothing.

        Raises:
            FatalConnectorError: a line is too long, or holds the character that stands for the delimiter.
        """
        place = max(chunk.rfind(b"\n"), chunk.rfind(b"\r", 0, max(0, len(chunk) - 1)))  # "\r" may be half of an end
        if place < 0 and not is_last:
            self._held.append(chunk)
            if sum(map(len, self._held)) > _MOST_BYTES:
                raise self._refused(f"the line has more than {_MOST_BYTES >> 20} MiB, the maximum")
            return b""
        place = len(chunk) if is_last else place + 1
        data = b"".join([*self._held, chunk[:place]])
        self._held = [chunk[place:]]
        if self._separator != self._delimiter and self._separator in data:
            self._line += data[: data.index(self._separator)].count(b"\n")
            raise self._refused("the character U+001F, which is not supported")
        made = self._quoted(data) if self._quote and (self._is_quoted or self._quote in data) else self._bare(data)
        self._line += data.count(b"\n")
        return made

    def _refused(self, reason: str) -> FatalConnectorError:
        said = "a delimiter with several characters" if self._separator != self._delimiter else "`trim` or `comment`"
        return FatalConnectorError(f"{self._label}:{self._line}: {reason} with {said}: convert the file first")

    def _bare(self, data: bytes) -> bytes:
        return self._edited(data if self._comments is None else self._comments.sub(b"", data))

    def _quoted(self, data: bytes) -> bytes:
        """Make plain CSV of data with quotes, of which each stands for what `_quotes` has found."""
        quote, was_quoted = self._quote, self._is_quoted
        found = self._quotes.split(quote + data if was_quoted else data)
        kept = [field or other or b"" for field, other in zip(found[1::3], found[2::3], strict=True)]
        self._is_quoted = not found[-1] and bool(found[-3]) and kept[-1].count(quote) % 2 == 1
        pieces = [b""] * (2 * len(kept) + 1)
        pieces[::2] = self._edited(quote.join(found[::3])).split(quote)
        pieces[1::2] = kept
        return b"".join(pieces)[was_quoted:]

    def _edited(self, data: bytes) -> bytes:
        """Edit what is outside of quotes."""
        if self._separator != self._delimiter:
            data = data.replace(self._delimiter, self._separator)
        return self._blanks_after.sub(b"", self._blanks_before.sub(b"", data)) if self._is_trimmed else data


__all__ = ["SEPARATOR", "PlainCSV"]
