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
from urllib.parse import quote, quote_plus, unquote

from ..connectors.secret_texts import MASK, WORD_LENGTH, is_maskable, pattern

MAX_SECRET_BYTES = 65_536
SECRETS_DIR = "/run/secrets"

#: The rest of a secret that a cut has split is masked if it has at least this many characters, at this many cuts.
CUT_LENGTH = 4
MAX_CUTS = 20

_CUT = re.compile(r"^\.\.\.", re.MULTILINE)
#: Up to the last `@`, if what follows the `:` is no port: a password that is not encoded may hold anything.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s:/@?#\"']*):(?!\d+[/?#])([^\s\"'<>]{1,256})@")
_KEY_VALUE = re.compile(r"\b(password|passwd|pwd)=(?!\*\*\*)('[^']*'|\"[^\"]*\"|[^\s&;,'\")\]}]+)", re.IGNORECASE)
#: Names in a service account whose values occur in every message, and let nobody in.
_PUBLIC = re.compile(r"^(type|account_type|project_id|quota_project_id|universe_domain)$|_ur[il]$")
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
        self._pattern: re.Pattern[str] | None = None
        #: The same at each place of a text: one spelling may begin within another, as a line of a key in its half.
        self._at_each_place: re.Pattern[str] = re.compile("(?!)")
        self._spellings: list[str] = []
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Add secrets, for example those resolved later."""
        known = self._values | {part for value in values for part in (value, *_parts(value)) if is_maskable(part)}
        if known == self._values:
            return
        spellings = {spelling for value in known for spelling in _spellings(value)}
        longest_first = sorted(spellings, key=lambda text: (-len(text), text))
        self._values = known
        self._spellings = longest_first
        spelled = "|".join(pattern(text) for text in longest_first)
        self._pattern, self._at_each_place = re.compile(spelled), re.compile(f"(?=({spelled}))")

    def redact(self, text: str) -> str:
        """Return the text with known secrets masked, and parts of secrets at a cut.

        A line that begins with `...`, and a text that ends with it, was cut there.
        """
        if self._pattern is not None:
            text = self._mask_cut(text)
            first = self._pattern.search(text)
            text = text if first is None else self._mask_known(text, first.start())
        return mask_url_passwords(text)

    def _mask_known(self, text: str, first: int) -> str:
        """Mask each spelling from a place on; of those that overlap, all that they cover."""
        kept, end = [text[:first]], first
        for match in self._at_each_place.finditer(text, first):
            start, after = match.span(1)
            if start >= end:
                kept += [text[end:start], MASK]
            end = max(end, after)
        return "".join(kept) + text[end:]

    def _mask_cut(self, text: str) -> str:
        if "..." not in text:
            return text
        for cut in list(_CUT.finditer(text))[:MAX_CUTS][::-1]:
            rest = max((_cut_off_start(spelling, text, cut.end()) for spelling in self._spellings), default=0)
            if rest:
                text = f"{text[: cut.end()]}{MASK}{text[cut.end() + rest :]}"
        if text.endswith("..."):
            rest = max((_cut_off_end(spelling, text, len(text) - 3) for spelling in self._spellings), default=0)
            if rest:
                text = f"{text[: len(text) - 3 - rest]}{MASK}..."
        return text

    def redact_value(self, value: Any) -> Any:
        """Return a JSON value with all its texts redacted, keys too."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {self.redact(str(key)): self.redact_value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.redact_value(item) for item in value]
        return value


def _cut_off_start(spelling: str, text: str, at: int) -> int:
    """Return how many characters after a place of the text are the end of a spelling."""
    probe = text[at : at + CUT_LENGTH]
    place = spelling.find(probe, 1) if len(probe) == CUT_LENGTH else -1
    while place > 0:
        if text.startswith(spelling[place:], at):
            return len(spelling) - place
        place = spelling.find(probe, place + 1)
    return 0


def _cut_off_end(spelling: str, text: str, at: int) -> int:
    """Return how many characters before a place of the text are the beginning of a spelling."""
    probe = text[max(0, at - CUT_LENGTH) : at]
    place = spelling.rfind(probe, 0, -1) if len(probe) == CUT_LENGTH else -1
    while place >= 0:
        if text.endswith(spelling[: place + CUT_LENGTH], 0, at):
            return place + CUT_LENGTH
        place = spelling.rfind(probe, 0, place + CUT_LENGTH - 1)
    return 0


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


def _spellings(value: str) -> set[str]:
    """Return the encodings in which programs write a value into a message."""
    import html  # here: most runs have no secret

    plain = {value, value.strip()}
    # A log may show single lines of a PEM key; a driver may show a part of a long value.
    plain |= {line.strip() for line in value.splitlines() if len(line.strip()) >= 12 and "-----" not in line}
    if len(value) >= 16:
        plain |= {value[: len(value) // 2], value[len(value) // 2 :]}
    found = set(plain)
    for text in plain:
        found |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]}
        found |= {html.escape(text), text.replace("'", "''"), text.replace('"', '""')}
        encoded = text.encode("utf-8", "surrogatepass")
        for escaped in (quote(encoded, safe=""), quote(encoded), quote_plus(encoded)):
            found |= {escaped, re.sub("%..", lambda match: match.group().lower(), escaped)}
    # One spelling around another: JSON in JSON, a form in a URL, base64 of either, base64 in lines.
    around = {json.dumps(text)[1:-1] for text in found} | {quote(text, safe="") for text in found}
    for text in {value, json.dumps(value)[1:-1], quote(value, safe="")}:
        encoded = text.encode("utf-8", "surrogatepass")
        around |= _base64_spellings(encoded) | _base64_lines(encoded)
        around |= {quote(one, safe="") for one in _base64_spellings(encoded)}
    encoded = value.encode("utf-8", "surrogatepass")
    found |= {encoded.hex(), encoded.hex().upper()} | around
    return {text for text in found if is_maskable(text)}


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
