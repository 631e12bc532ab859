"""A pipeline given as a mapping in place of a file: plain values without lines."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from .yaml_document import MAX_DEPTH, NOT_TEXT, Document, Loc, key_of


def mapping_document(values: Mapping[str, Any]) -> Document:
    """Copy a mapping of JSON values; tuples become lists, paths become text.

    Raises:
        ConfigError: a value or a key is none that a pipeline file could hold, or `pipeline` is missing.
    """
    if values.get("pipeline") is None:
        raise ConfigError("a mapping has no file to be named after: give it `pipeline`", key="pipeline")
    return Document(None, _plain(values, ()), {})


def _plain(value: Any, loc: Loc) -> Any:
    if len(loc) > MAX_DEPTH:
        raise ConfigError(f"nested more than {MAX_DEPTH} levels deep", key=key_of(loc))
    if isinstance(value, Mapping):
        return {_key(key, loc): _plain(item, (*loc, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*loc, place)) for place, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if not isinstance(value, str):
        raise ConfigError(f"a {type(value).__name__} is no JSON value", key=key_of(loc))
    return _text(value, loc)


def _key(key: Any, loc: Loc) -> str:
    if not isinstance(key, str) or not key:
        raise ConfigError("a key must be text", key=key_of(loc))
    return _text(key, loc)


def _text(text: str, loc: Loc) -> str:
    if NOT_TEXT.search(text):
        raise ConfigError("holds a NUL or half a surrogate pair", key=key_of(loc))
    return text
