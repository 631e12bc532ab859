"""Values of Mage's files: templates of ours, and no secret in clear text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from ...secrets import url_passwords

_SECRET = re.compile(
    r"pass|secret|token|private|credential|api_?key|authorization|cookie|pkey|connection_string|account_key",
    re.IGNORECASE,
)
#: Settings that say where a secret is.
_PLACE = re.compile(r"(?:^|_)path(?:_|$)|_file$")
_MAGE_SECRET = re.compile(r"\bmage_secret_var\(\s*(['\"])([^'\"]+)\1\s*\)")
_OTHER_CALL = re.compile(r"\b(?!env_var\b|variables\b|secret\b|(?:aws|azure|gcp|vault)_secret_var\b)([a-z_]\w*)\(")


def is_secret(key: str) -> bool:
    """Tell whether a setting of this name may be a secret."""
    return _SECRET.search(key) is not None and not _PLACE.search(key)


def value_of(uuid: str, key: str, value: Any, notes: list[str]) -> Any:
    """Return a setting with templates of ours; a secret in clear text becomes an environment variable."""
    if isinstance(value, Mapping):
        return {str(name): value_of(uuid, f"{key}_{name}", item, notes) for name, item in value.items()}
    if isinstance(value, list):
        return [value_of(uuid, key, item, notes) for item in value]
    if isinstance(value, date):
        notes.append(f"{uuid}: {key} is a date in Mage's file, and a text here: a function must make a date of it")
        return value.isoformat()
    if not isinstance(value, str) or not value:
        return value
    if "{{" in value:
        return template(f"{uuid}: {key}", value, notes)
    if is_secret(key) or any(url_passwords(value)):
        return in_clear(uuid, key, notes)
    return value


def in_clear(uuid: str, key: str, notes: list[str]) -> str:
    """Return the environment variable that replaces a secret which Mage's file has in clear text."""
    variable = re.sub(r"\W", "_", f"{uuid}_{key}").upper()
    notes.append(f"{uuid}: {key} stands in clear text in Mage's file: set the environment variable {variable}")
    return "{{ env_var('" + variable + "') }}"


def template(where: str, text: str, notes: list[str]) -> str:
    """Return a text with Mage's functions in its templates replaced by ours."""
    for found in _MAGE_SECRET.finditer(text):
        notes.append(f"{where}: set the secret {found[2]!r} (a file .syncblocks/secrets/{found[2]}, mode 0600)")
    made = _MAGE_SECRET.sub(r"secret(\1\2\1)", text)
    for expression in re.findall(r"\{\{(.*?)\}\}", made, re.DOTALL):
        for name in _OTHER_CALL.findall(expression):
            notes.append(f"{where}: templates have no function {name!r} here: write it by hand")
    return made
