"""The forms of a secret in which a text may contain it: its parts, in lower case, hexadecimal and base64."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from urllib.parse import quote

from ..connectors.secret_texts import WORD_LENGTH, is_telling

#: Number of bytes after which PostgreSQL cuts a name.
_NAME_BYTES = 63
_URL_PARTS = re.compile(r"[?#]")


def forms_of(value: str) -> set[str]:
    """Return a value, the parts of it that a text may show alone, and its encodings that `Secrets` does not decode."""
    found = {value, value.strip(), *_in_lower_case(value)}
    # A log or an error may show single lines, and a driver may show a part of a long value.
    found |= {line.strip() for line in value.splitlines() if "-----" not in line}
    if len(value) >= 16:
        found |= {value[: len(value) // 2], value[len(value) // 2 :]}
    if "://" not in value:
        # HTTP clients remove line breaks from a URL, and a message may show only its path, its query or its fragment.
        joined = re.sub(r"[\t\r\n]", "", value)
        found |= {joined, *filter(is_telling, _URL_PARTS.split(joined))}
    for text in {value, json.dumps(value)[1:-1], quote(value, safe="")}:
        encoded = text.encode("utf-8", "surrogatepass")
        found |= _base64_spellings(encoded) | _base64_lines(encoded)
    encoded = value.encode("utf-8", "surrogatepass")
    return found | {encoded.hex(), encoded.hex().upper()}


def _in_lower_case(value: str) -> Iterator[str]:
    """Yield the texts that a server writes if it reads a value as a host or as a name without quotes.

    A value with white space is not a name. Short values and short words, such as `Public-Data`, are not yielded,
    because in lower case they occur in ordinary messages.
    """
    if re.search(r"\s", value):
        return
    # PostgreSQL changes the letters of ASCII only.
    for lower in {value.lower(), re.sub("[A-Z]+", lambda match: match[0].lower(), value)}:
        cut = lower.encode("utf-8", "surrogatepass")[:_NAME_BYTES].decode("utf-8", "ignore")
        # An error may show the part before a dot alone, as the name of a schema.
        parts = lower.split(".") if "://" not in value else ()
        yield from (each for each in (lower, cut, *parts) if len(each) >= WORD_LENGTH and not _has_words_only(each))


def _has_words_only(text: str) -> bool:
    return len(text) < 2 * WORD_LENGTH and re.sub("[-_.]", "", text).isalpha()


def _base64_lines(encoded: bytes) -> set[str]:
    """Return the lines of base64 in MIME's and PEM's width."""
    text = base64.b64encode(encoded).decode()
    lines = {text[at : at + width] for width in (64, 76) for at in range(0, len(text), width)}
    return {line for line in lines if len(line) >= 2 * WORD_LENGTH}


def _base64_spellings(encoded: bytes) -> set[str]:
    """Return the base64 texts of the bytes at each of their three possible offsets in a longer text."""
    found = {base64.b64encode(encoded).decode(), base64.urlsafe_b64encode(encoded).decode()}
    for offset in range(3):
        # Only characters without bits of the neighbouring bytes are always the same.
        first = (offset * 8 + 5) // 6
        last = (offset + len(encoded)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            inner = encode(b"\0" * offset + encoded).decode()[first:last]
            if len(inner) >= WORD_LENGTH:
                found.add(inner)
    return found


__all__ = ["forms_of"]
