"""Turn pydantic's errors into mistakes: place, message, allowed values, nearest match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from ..errors import nearest_match
from .before_statements import BeforeStatement
from .blocks import CallbackBlock, Columns, DestinationBlock, SourceBlock, StreamEntry, TransformerBlock
from .executor import ExecutorSettings, SecuritySettings
from .expect import ExpectSettings, RowsSettings
from .hooks import ShellSettings, SqlSettings, WebhookSettings
from .other_words import shape_of, value_of_others, words_of_others
from .pipeline import Pipeline
from .run_retention import HistorySettings
from .schedule import ScheduleSettings
from .yaml_document import Loc, describe

_MODELS: dict[Loc, type[BaseModel]] = {
    (): Pipeline,
    ("source",): SourceBlock,
    ("destination",): DestinationBlock,
    ("transformers", 0): TransformerBlock,
    ("streams", 0): StreamEntry,
    ("streams", 0, "columns"): Columns,
    ("before", 0): BeforeStatement,
    ("streams", 0, "before", 0): BeforeStatement,
    ("schedule",): ScheduleSettings,
    ("expect",): ExpectSettings,
    ("expect", "rows"): RowsSettings,
    ("streams", 0, "expect"): ExpectSettings,
    ("streams", 0, "expect", "rows"): RowsSettings,
    ("history",): HistorySettings,
    ("executor",): ExecutorSettings,
    ("executor", "security"): SecuritySettings,
    ("callbacks", 0): CallbackBlock,
    ("callbacks", 0, "webhook"): WebhookSettings,
    ("callbacks", 0, "sql"): SqlSettings,
    ("callbacks", 0, "shell"): ShellSettings,
}

#: It has a table of the keys of each block.
_PAGE = "docs/pipeline.md"

#: Former name of a setting -> its new name.
RENAMED = {
    "on_bad_record": "`on_rejected` (`fail`, or `keep` for what was `quarantine`)",
    "max_bad_records": "`max_rejected`",
}

_EXPECTED = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "a mapping (key: value)",
    "model": "a mapping (key: value)",
    "tuple": "a list ([a, b] or one `- item` a line)",
}
#: Marks of pydantic for the members of a union, such as `int | float`.
_MEMBERS = ("int", "float")
#: A word is a misspelling of one of other tools only if it is as similar: `files` is no `filter`.
_SIMILAR = 0.8

_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def mistake_of(error: Mapping[str, Any], values: Any) -> dict[str, Any]:
    """Return the arguments of the report of an error: `loc`, `message`, optionally `allowed` and `word`."""
    loc = own_loc(error)
    kind: str = error["type"]
    context = error.get("ctx") or {}
    if kind == "extra_forbidden" and str(loc[-1]) in RENAMED:
        return {"loc": loc, "message": f"is now called {RENAMED[str(loc[-1])]}"}
    if kind == "extra_forbidden":
        return _unknown(loc)
    if kind == "missing":
        return {"loc": loc, "message": "is required"}
    if kind == "literal_error":
        value = _value_at(values, loc)
        if isinstance(value, dict | list):
            return {"loc": loc, "message": f"must be {context['expected']}, not {describe(value)}"}
        allowed = [text.strip().strip("'") for text in str(context["expected"]).replace(" or ", ",").split(",")]
        word = value if isinstance(value, str) else None
        nearest = value_of_others(loc, word)
        return {
            "loc": loc,
            "message": "has a value that is not allowed",
            "allowed": allowed,
            "word": word,
            "nearest": nearest if nearest in allowed else None,
        }
    if kind in _LIMITS:
        words, limit = _LIMITS[kind]
        return {"loc": loc, "message": f"must be {words} {context[limit]:g}"}
    if kind == "value":
        return {"loc": loc, "message": str(error["msg"]), "nearest": context.get("nearest")}
    message = _wrong_kind(kind, _value_at(values, loc))
    shape = shape_of(loc)
    return {"loc": loc, "message": f"{message}; {shape}" if shape else message}


def _unknown(loc: Loc) -> dict[str, Any]:
    word, known, theirs = str(loc[-1]), known_keys(loc[:-1]), words_of_others(loc[:-1])
    is_block = loc[:-1] in (("source",), ("destination",))
    if _nearest_key(loc) is None:
        # In a block a word near theirs is rather a setting of the connector: `dbname`, not a misspelt `name`.
        other = word if word in theirs or is_block else nearest_match(word, theirs, _SIMILAR)
        if other is not None and other in theirs:
            return {"loc": loc, "message": f"unknown key; `{other}` of other tools is here {theirs[other]}"}
        if is_block:
            hint = "settings of the connector belong in `config`: `config: {" + word + ": ...}`"
            return {"loc": loc, "message": f"unknown key; {hint}"}
        if _is_of_stream(loc):
            return {"loc": loc, "message": "unknown key; it belongs in an entry of `streams`"}
        if loc[:1] == ("streams",) and loc[2:-1] == ("columns",):
            types = f"`types: {{{word}: ...}}`"
            return {"loc": loc, "message": f"unknown key; declare a column's type by {types} of the stream"}
    return {"loc": loc, "message": "unknown key", "allowed": known, "word": word, "listed_in": _PAGE}


def _nearest_key(loc: Loc) -> str | None:
    """Return the known key that an unknown one may be a misspelling of; None for a former name or another tool's."""
    if loc[-1] in RENAMED or loc[-1] in words_of_others(loc[:-1]) or _is_of_stream(loc):
        return None
    return nearest_match(str(loc[-1]), known_keys(loc[:-1]))


def _is_of_stream(loc: Loc) -> bool:
    """Tell whether an unknown key of the pipeline is one of its streams."""
    return len(loc) == 1 and loc[0] in StreamEntry.model_fields


def _meant_key(loc: Loc) -> str | None:
    """Return the key that an unknown one stands for: a word of other tools, or a misspelling."""
    other = words_of_others(loc[:-1]).get(str(loc[-1]))
    if other is None:
        return _nearest_key(loc)
    key = other.partition(";")[0].strip("`")
    # The value of a callback block's key is written in another way, too.
    return key if loc[:1] != ("callbacks",) and key in known_keys(loc[:-1]) else None


def misspelled(errors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the errors about unknown keys: because of one another key may seem to be missing."""
    return [error for error in errors if error["type"] == "extra_forbidden"]


def mended(values: Any, errors: Sequence[Mapping[str, Any]]) -> Any:
    """Return the values with each key that is meant for another as that one, and without what is wrong."""
    places = {own_loc(error): error for error in errors}
    values = _copied(values)
    for loc, error in places.items():
        while loc and not isinstance(loc[-1], str):
            loc = loc[:-1]  # an item of a list: its neighbours would get other places
        owner = _value_at(values, loc[:-1])
        if not loc or not isinstance(owner, dict) or loc[-1] not in owner:
            continue
        value = owner.pop(loc[-1])
        known = _meant_key(loc) if error["type"] == "extra_forbidden" else None
        if known is not None:
            owner.setdefault(known, value)
    return values


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def known_keys(loc: Loc) -> tuple[str, ...]:
    """Return the keys that are allowed at a place."""
    model = _MODELS.get(tuple(0 if isinstance(part, int) else part for part in loc))
    return () if model is None else tuple(field.alias or name for name, field in model.model_fields.items())


def own_loc(error: Mapping[str, Any]) -> Loc:
    """Return the place of an error, without pydantic's marks for a mapping's key and for a member of a union."""
    loc: Loc = tuple(part for part in error["loc"] if part != "[key]")
    return loc[:-1] if loc and loc[-1] in _MEMBERS else loc


def _value_at(values: Any, loc: Loc) -> Any:
    for part in loc:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _wrong_kind(kind: str, value: Any) -> str:
    expected = next((words for name, words in _EXPECTED.items() if kind.startswith(name)), "another kind of value")
    if value is None:
        return f"is empty, but must be {expected}"
    if expected == "text" and isinstance(value, bool | int | float):
        return f"must be text, but YAML reads it as {describe(value)}: put it in quotes"
    if kind.startswith("tuple") and isinstance(value, str | int | float):
        return f"must be {expected}, not one value: put it in [ ]"
    if kind.startswith("int") and isinstance(value, float):
        return "must be a whole number"
    return f"must be {expected}, not {describe(value)}"
