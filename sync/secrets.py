"""Secrets: where they are looked up, and how they are masked in every text that leaves the process."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..connectors.secret_texts import MASK, Secrets, is_maskable
from .secret_forms import forms_of

MAX_SECRET_BYTES = 65_536
SECRETS_DIR = "/run/secrets"

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
        self._secrets: Secrets | None = None
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Add secrets, for example those resolved later."""
        known = self._values | {part for value in values for part in (value, *_parts(value)) if is_maskable(part)}
        if known == self._values:
            return
        self._values = known
        self._secrets = Secrets(form for value in known for form in forms_of(value))

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
