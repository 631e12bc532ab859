"""The parts of errors and rejected records that may be shown if columns are masked: no values of records.

A connector's error has the part of its message without values (`without_values`). Reasons of rejected records and
unreadable streams have it too. A driver's message may contain values anywhere, whatever its SQLSTATE. A
statement can look up a value as the name of a table, or raise any error itself. So only known phrases of such a message
are shown, with the place, the names that the stream or its query has, and the classes of the errors.
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

#: Errors of settings, connections and stops. Their messages contain no record unless a server wrote them.
_PLAIN = (ConnectorConfigError, Interrupted, RetriableError, TakenOver)

_SUFFIXES = "csv|tsv|txt|jsonl?|ndjson|parquet|zip|gz|bz2|xz|zst|lz4|snappy"
_PLACE = re.compile(rf"([\w./ +-]+\.(?:{_SUFFIXES}):\d+|tap [\w.-]+(?:, stream '[\w.-]+')?: line \d+)(?:: | )?")

#: Beginnings of drivers' messages that are shown if the name in them is not a value.
_KNOWN = re.compile(
    "|".join(
        (
            r"(?:ERROR: +)?permission denied for (?:table|view|schema|column|sequence) \"?(?P<denied>[\w.]+)\"?",
            r"(?:ERROR: +)?(?:relation|schema|column) \"(?P<missing>[\w.]+)\" does not exist",
            r"no such table: (?P<table>[\w.]+)",
            r"unable to open database file",
        )
    )
)
#: Names of the base classes of the errors that drivers make from a server's messages.
_OF_SERVERS = frozenset({"DatabaseError", "DBAPIError", "PostgresError"})
_REPORTED = re.compile(r"\(SQLSTATE \w{5}\)|\(error \d+\)")
_NOT_CONNECTED = "cannot connect to "
_QUOTED_NAME = re.compile(r"\"([^\"]+)\"|'([^']+)'|`([^`]+)`")
_WORD = re.compile(r"[^\W\d][\w$]*")
_COLUMN = re.compile(r"column '([^']*)'")
_HIDDEN = "the rest of the message is not shown: it may hold values of masked columns"

#: A shorter part of a value occurs in most messages; of a longer value a message may show the beginning.
_LEAST, _BEGINNING = 3, 12


def hidden_error(error: Exception, columns: Collection[str], names: Collection[str] = ()) -> Exception:
    """Return an error of the same class without values of a record, and without its causes.

    Args:
        error: the error of the read.
        columns: names of the read columns.
        names: further names that may be shown, such as those of the streams and of their queries.
    """
    clear = error.without_values if isinstance(error, ConnectorError) else ""
    is_of_server = _is_of_server(error)
    if (isinstance(error, _PLAIN) and not is_of_server) or (clear and clear == str(error)):
        return _alone(error, str(error))
    known = {*columns, *names}
    text = clear or hidden_text(str(error), columns, known)
    if is_of_server and not clear and (named := _named(str(error), known)):
        text += f"; the message names {', '.join(map(repr, named))}"
    kinds = " from ".join(dict.fromkeys(_kinds(error)))
    return _alone(error, f"{text} ({kinds}; {_HIDDEN})")


def names_in(text: str) -> set[str]:
    """Return the names that a statement may have, without the contents of its literals."""
    return set(_WORD.findall(re.sub("'[^']*'", " ", text)))


def _is_of_server(error: Exception) -> bool:
    """Return true if a server wrote the message, or a part of it, in answer to a statement."""
    if str(error).startswith(_NOT_CONNECTED):
        return False
    return bool(_REPORTED.search(str(error)) or _codes(error)) or any(
        base.__name__ in _OF_SERVERS for each in _chain(error) for base in type(each).__mro__
    )


def _named(text: str, known: Collection[str]) -> list[str]:
    """Return the known names that a message has in quotes."""
    quoted = ("".join(match.groups(default="")) for match in _QUOTED_NAME.finditer(text))
    return [name for name in dict.fromkeys(quoted) if _is_known(name, known)]


def _is_known(name: str, known: Collection[str]) -> bool:
    return name in known or all(part in known for part in name.split("."))


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
    for each in _chain(error):
        position = getattr(each, "position", None) or getattr(getattr(each, "diag", None), "statement_position", None)
        if str(position or "").isdigit():
            yield f"character {position} of the statement"
        number = each.args[0] if each.args else None
        if isinstance(number, int) and type(each).__module__.startswith("pymysql"):
            yield f"error {number}"


def hidden_text(text: str, columns: Collection[str], names: Collection[str] = ()) -> str:
    """Return the part of an unmarked message that may be shown: place, known phrase, columns."""
    place = _PLACE.match(text)
    rest = text if place is None else text[place.end() :]
    known = _KNOWN.match(rest)
    if known is not None and not all(_is_known(name, names) for name in known.groups() if name):
        known = None
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


__all__ = ["hidden_error", "hidden_rejected", "hidden_text", "names_in"]
