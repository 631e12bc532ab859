"""The parts of errors and rejected records that may be shown if columns are masked: no values of records.

A connector's error has the part of its message without values (`without_values`). Reasons of rejected records and
unreadable streams have it too. A driver's message may contain values anywhere. So only known phrases of such a message
are shown, with the place and the classes of the errors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from syncblocks.connectors.arrow.masking import masked_value, rule_of
from syncblocks.connectors.errors import (
    ConnectorConfigError,
    ConnectorError,
    FatalConnectorError,
    Interrupted,
    RetriableError,
    TakenOver,
)
from syncblocks.connectors.read_spec import Masks
from syncblocks.connectors.stream import Rejected, RejectedRecord

#: Errors of settings, connections and stops: their messages contain no record.
_PLAIN = (ConnectorConfigError, Interrupted, RetriableError, TakenOver)

_SUFFIXES = "csv|tsv|txt|jsonl?|ndjson|parquet|zip|gz|bz2|xz|zst|lz4|snappy"
_PLACE = re.compile(rf"([\w./ +-]+\.(?:{_SUFFIXES}):\d+|tap [\w.-]+(?:, stream '[\w.-]+')?: line \d+)(?:: | )?")

#: Beginnings of drivers' messages that contain no value.
_KNOWN = re.compile(
    "|".join(
        (
            r"(ERROR: +)?permission denied for \w+ \"?[\w.]+\"?",
            r"(ERROR: +)?(relation|schema|column) \"[\w.]+\" does not exist",
            r"no such table: [\w.]+",
            r"unable to open database file",
        )
    )
)
#: SQLSTATE classes about a connection, a user, a server or the statement: missing objects or privileges.
_OF_STATEMENTS = ("08", "28", "42", "53", "57")
_COLUMN = re.compile(r"column '([^']*)'")
_HIDDEN = "the rest of the message is not shown: it may hold values of masked columns"

#: A shorter part of a value occurs in most messages; of a longer value a message may show the beginning.
_LEAST, _BEGINNING = 3, 12


def hidden_error(error: Exception, columns: Collection[str]) -> Exception:
    """Return an error of the same class without values of a record, and without its causes.

    Args:
        error: the error of the read.
        columns: names of the read columns.
    """
    clear = error.without_values if isinstance(error, ConnectorError) else ""
    if isinstance(error, _PLAIN) or (clear and clear == str(error)):
        return _alone(error, str(error))
    if any(code.startswith(_OF_STATEMENTS) for code in _codes(error)):
        return _alone(error, str(error).partition("\n")[0])
    kinds = " from ".join(dict.fromkeys(_kinds(error)))
    return _alone(error, f"{clear or hidden_text(str(error), columns)} ({kinds}; {_HIDDEN})")


def _alone(error: Exception, text: str) -> Exception:
    if not isinstance(error, ConnectorError):
        return FatalConnectorError(text)
    found = type(error).__new__(type(error))
    found.args = (text,)
    for name in ("connector", "stream", "key", "raised_in", "without_values"):
        setattr(found, name, getattr(error, name))
    return found


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    for _ in range(5):
        if found is not None:
            yield found
            found = found.__cause__


def _codes(error: BaseException) -> list[str]:
    """Return the SQLSTATEs of an error and its causes."""
    codes = (getattr(each, "sqlstate", None) for each in _chain(error))
    return [code for code in codes if isinstance(code, str) and re.fullmatch(r"[0-9A-Z]{5}", code)]


def _kinds(error: BaseException) -> Iterator[str]:
    """Yield the class names of an error and of its causes, then the error codes of databases."""
    yield from (type(each).__name__ for each in _chain(error))
    yield from (f"SQLSTATE {code}" for code in _codes(error))


def hidden_text(text: str, columns: Collection[str]) -> str:
    """Return the part of an unmarked message that may be shown: place, known phrase, columns."""
    place = _PLACE.match(text)
    rest = text if place is None else text[place.end() :]
    known = _KNOWN.match(rest)
    parts = [] if place is None else [place[1]]
    parts.append(_about(rest, columns) if known is None else known[0])
    return ": ".join(parts)


def _about(text: str, columns: Collection[str]) -> str:
    named = [name for name in dict.fromkeys(_COLUMN.findall(text)) if name in columns]
    return f"column {named[0]!r} has a value that cannot be read" if named else "the records cannot be read"


def hidden_rejected(event: Rejected, masks: Masks, columns: Collection[str]) -> Rejected:
    """Return rejected records with masked values; for one without columns, only place and reason."""
    return Rejected(records=tuple(_hidden_record(record, masks, columns) for record in event.records))


def _hidden_record(rejected: RejectedRecord, masks: Masks, columns: Collection[str]) -> RejectedRecord:
    values = _values(rejected.record, columns)
    if values is None:
        reason = rejected.reason_without_values or hidden_text(rejected.reason, ())
        return RejectedRecord(record="null", reason=reason, place=rejected.place)
    rules = {name: rule for name in values if (rule := rule_of(masks, name)) is not None}
    shown = {
        name: masked_value(value, rules[name], masks.key) if name in rules else value for name, value in values.items()
    }
    reason = rejected.reason
    if not _is_clear(reason, rules, [values[name] for name in rules], columns):
        reason = rejected.reason_without_values or hidden_text(reason, columns)
    return RejectedRecord(record=json.dumps(shown), reason=reason, place=rejected.place)


def _values(record: str, columns: Collection[str]) -> Mapping[str, Any] | None:
    """Return a rejected record's values by column; None: it is a plain text, or was cut."""
    found = json.loads(record)
    if not isinstance(found, dict) or not found or (set(found) == {"cut"} or not set(found).intersection(columns)):
        return None
    return found


def _is_clear(reason: str, masked: Collection[str], values: Collection[Any], columns: Collection[str]) -> bool:
    """Return whether a reason is about unmasked columns, and shows no masked value."""
    named = _COLUMN.findall(reason)
    if not named or any(name in masked or name not in columns for name in named):
        return False
    texts = [text for value in values if value is not None and len(text := str(value)) >= _LEAST]
    return not any(text[:_BEGINNING] in reason or repr(text)[1:-1][:_BEGINNING] in reason for text in texts)


__all__ = ["hidden_error", "hidden_rejected", "hidden_text"]
