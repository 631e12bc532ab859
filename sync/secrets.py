"""Secrets: where they are looked up, and how they are masked in every text that leaves the process."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ..connectors.secret_texts import MASK, WORD_LENGTH, Secrets, is_maskable, is_telling

MAX_SECRET_BYTES = 65_536
SECRETS_DIR = "/run/secrets"

#: Up to the last `@`, if what follows the `:` is no port: a password that is not encoded may hold anything.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s:/@?#\"']*):(?!\d+[/?#])([^\s\"'<>]{1,256})@")
_KEY_VALUE = re.compile(r"\b(password|passwd|pwd)=(?!\*\*\*)('[^']*'|\"[^\"]*\"|[^\s&;,'\")\]}]+)", re.IGNORECASE)
#: Names in a service account whose values occur in every message, and let nobody in.
_PUBLIC = re.compile(r"^(type|account_type|project_id|quota_project_id|universe_domain)$|_ur[il]$")
#: Number of bytes after which PostgreSQL cuts a name.
_NAME_BYTES = 63
_URL_PARTS = re.compile(r"[?#]")
_SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


def url_passwords(text: str) -> frozenset[str]:
    """Return the passwords of all URLs in a text, as written and decoded."""
    found = {match.group(2) for match in _URL_PASSWORD.finditer(text)} if "://" in text else set()
    return frozenset(found | {unquote(password) for password in found})


def mask_url_passwords(text: str) -> str:
    """Mask each password of a URL or of a `password=` setting."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    return _KEY_VALUE.sub(rf"\1={MASK}", text)


def lookup_secret(name: str, folder: Path, environ: Mapping[str, str]) -> str:
    """Return the first of `$SYNCBLOCKS_SECRETS_DIR/x`, `.syncblocks/secrets/x` and `SYNCBLOCKS_SECRET_X` that exists.

    The last line break of a file is not part of the secret.

    Raises:
        LookupError: the name is not valid, there is no such secret, or its file cannot be used; says what to do.
    """
    if not _SECRET_NAME.fullmatch(name):
        raise LookupError(f"{name!r} is not a name of a secret: letters, digits, '_', '-' and '.' only")
    mounted = Path(environ.get("SYNCBLOCKS_SECRETS_DIR") or SECRETS_DIR) / name
    own = folder / ".syncblocks" / "secrets" / name
    variable = "SYNCBLOCKS_SECRET_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    for path, is_private in ((folder / mounted, False), (own, True)):
        value = _read_secret(path, is_private=is_private)
        if value is not None:
            return value
    if variable in environ:
        return environ[variable]
    raise LookupError(f"no secret {name!r}: looked for {mounted}, .syncblocks/secrets/{name} and ${variable}")


def _read_secret(path: Path, *, is_private: bool) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            # The mode of the opened file, since the path could be replaced meanwhile.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise LookupError(f"secret file {path} cannot be read: {error.strerror}") from error
    if is_private and mode & 0o077:
        raise LookupError(f"secret file {path} has mode {mode:04o}, others can read it: chmod 600 {path}")
    if len(content) > MAX_SECRET_BYTES:
        raise LookupError(f"secret file {path} is larger than {MAX_SECRET_BYTES} bytes")
    try:
        return re.sub(r"\r?\n\Z", "", content.decode("utf-8"))
    except UnicodeDecodeError:
        # Without the cause, which contains the bytes.
        raise LookupError(f"secret file {path} is not UTF-8 text") from None


class Redactor:
    """Replaces every known secret in a text by `***`, also in its usual encodings.

    A second line of defence: texts should not contain secrets. Also masks unknown passwords of URLs and of `password=`
    settings.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: frozenset[str] = frozenset()
        self._secrets: Secrets | None = None
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Add secrets, for example those resolved later."""
        known = self._values | {part for value in values for part in (value, *_parts(value)) if is_maskable(part)}
        if known == self._values:
            return
        self._values = known
        self._secrets = Secrets(form for value in known for form in _forms(value))

    def redact(self, text: str) -> str:
        """Return the text with known secrets masked, and parts of secrets at a cut.

        A line that begins with `...`, and the text before each `...`, was cut there.
        """
        return mask_url_passwords(text if self._secrets is None else self._secrets.masked(text))

    def redact_value(self, value: Any) -> Any:
        """Return a JSON value with all its texts redacted, keys too."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {self.redact(str(key)): self.redact_value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_value(item) for item in value]
        return value


def _parts(value: str) -> Iterator[str]:
    """Yield the secrets inside of a secret that is JSON, such as a service account's private key."""
    if value.lstrip()[:1] not in ("{", "["):
        return
    try:
        inner = [("", json.loads(value))]
    except (ValueError, RecursionError):
        return
    while inner:
        name, found = inner.pop()
        if isinstance(found, dict):
            inner += found.items()
        elif isinstance(found, list):
            inner += [(name, each) for each in found]
        elif isinstance(found, str | int) and not isinstance(found, bool) and not _PUBLIC.search(name):
            yield str(found)


def _forms(value: str) -> set[str]:
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
