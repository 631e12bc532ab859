"""Messages of Airbyte's protocol, version 0, and what all commands do with them: LOG, TRACE and CONTROL."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError, RetriableError
from ..programs.records import MALFORMED
from ..secret_texts import masked
from .launcher import LOST_PAGE

log = logging.getLogger("syncblocks")

#: Most characters of a line that is no message, in the log.
_MOST_SHOWN = 2000

#: Replaces secrets in the CDK's own log.
_CDK_MASK = "****"

_LEVELS = {"FATAL": logging.CRITICAL, "WARN": logging.WARNING, "TRACE": logging.DEBUG}

#: Most warnings that are remembered.
_MOST_WARNINGS = 1000


class Message(msgspec.Struct):
    """A message; a STATE stays JSON, which its stream keeps as it is."""

    type: Any = None
    record: Any = None
    state: msgspec.Raw = msgspec.Raw(b"null")
    log: Any = None
    trace: Any = None
    control: Any = None
    catalog: Any = None
    spec: Any = None
    connectionStatus: Any = None
    #: What the launcher adds to a LOG.
    syncblocks: Any = None


class LogWarning(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the connector's log from WARN on."""

    is_error: bool
    #: Name of the stream that was read; `None` if the connector does not report it.
    stream: str | None
    #: True if the CDK has dropped an answer of the API and will call its stream complete.
    is_page_lost: bool


_messages = msgspec.json.Decoder(Message)


def decoded(line: bytes) -> Message | None:
    """Return the message of a line; None: the line is a text that the program has printed.

    Raises:
        ValueError: the line begins as a message, and is none.
    """
    try:
        return _messages.decode(line)
    except MALFORMED as error:
        if not line.lstrip().startswith(b"{"):
            return None
        try:  # NaN and infinities, as Python's JSON writer writes them
            found = json.loads(line.decode())
            state = msgspec.Raw(json.dumps(found.pop("state", None)).encode())
            return Message(
                **{name: found.get(name) for name in Message.__struct_fields__ if name != "state"}, state=state
            )
        except (ValueError, AttributeError, RecursionError):
            raise ValueError("is not JSON") from error


class Listener:
    """Takes the messages that are of no stream.

    Args:
        label: the connector, for the log.
        secrets: what is masked; may grow.
        on_config: called with the config of a CONTROL message.
        is_quiet: nothing that the connector says is shown, since it may hold values of masked columns.
    """

    def __init__(
        self,
        label: str,
        secrets: list[str],
        on_config: Callable[[Mapping[str, Any]], None],
        *,
        is_quiet: bool = False,
    ) -> None:
        self.label = label
        self._secrets = secrets
        self._on_config = on_config
        self._is_quiet = is_quiet
        self._strange: set[str] = set()
        self._warnings: set[str] = set()

    def printed(self, line: bytes) -> None:
        """Log a line that is no message."""
        shown = line[:_MOST_SHOWN].decode("utf-8", "replace").strip()
        self._log(logging.INFO, shown + "..." * (len(line) > _MOST_SHOWN))

    def take(self, message: Message) -> LogWarning | None:
        """Take a LOG or CONTROL message, and log each unknown type once.

        Returns:
            A line of the log from WARN on; `None` for all other messages.
        """
        if message.type == "LOG" and isinstance(message.log, dict):
            return self._line(message)
        if message.type == "CONTROL" and isinstance(message.control, dict):
            held = message.control.get("connectorConfig")
            config = held.get("config") if isinstance(held, dict) else None
            if message.control.get("type") == "CONNECTOR_CONFIG" and isinstance(config, dict):
                self._on_config(config)
        elif isinstance(message.type, str) and message.type not in _KNOWN and message.type not in self._strange:
            self._strange.add(message.type)
            log.warning("%s: a message of the type %r is left out", self.label, self.clear(message.type[:80]))
        return None

    def _line(self, message: Message) -> LogWarning | None:
        level = str(message.log.get("level", "INFO"))
        found = _LEVELS.get(level) or getattr(logging, level, logging.INFO)
        number = found if isinstance(found, int) else logging.INFO
        text = str(message.log.get("message", ""))
        head, *traceback = text.split(_TRACEBACK, 1)
        self._log(self._level(number, head), head)
        if traceback:
            self._log(logging.DEBUG, text)
        if number < logging.WARNING:
            return None
        mark = message.syncblocks if isinstance(message.syncblocks, dict) else None
        stream = mark.get("stream") if mark is not None else None
        return LogWarning(
            is_error=number > logging.WARNING,
            stream=stream if isinstance(stream, str) else None,
            is_page_lost=any(may_begin(text, each) for each in LOST_PAGE)
            if mark is None
            else mark.get("is_page_lost") is True,
        )

    def _level(self, level: int, text: str) -> int:
        """Return the level of a line; a warning that is repeated for each request is shown once."""
        if level != logging.WARNING:
            return level
        if text in self._warnings:
            return logging.DEBUG
        if len(self._warnings) < _MOST_WARNINGS:
            self._warnings.add(text)
        return level

    def error(self, trace: Mapping[str, Any], stream: str = "") -> ConnectorError:
        """Return the error of a TRACE ERROR: the message for users; what is for developers goes to the log."""
        for key in ("internal_message", "stack_trace"):
            if trace.get(key):
                self._log(logging.DEBUG, f"{key}: {trace[key]}")
        failure = trace.get("failure_type")
        kind: type[ConnectorError] = FatalConnectorError
        if failure == "transient_error":
            kind = RetriableError
        elif failure == "config_error":
            kind = ConnectorConfigError
        where = f"{self.label}, stream {stream!r}" if stream else self.label
        if self._is_quiet:
            said = f"failed ({failure if failure in _FAILURES else 'system_error'}); what it said is not shown, since "
            return kind(f"{where}: {said}columns are masked", connector="airbyte", stream=stream, has_no_values=True)
        text = self.clear(str(trace.get("message") or trace.get("internal_message") or "an error without a message"))
        more = "; `--debug` shows more" if trace.get("internal_message") else ""
        return kind(f"{where}: {text.strip()}{more}", connector="airbyte", stream=stream)

    def clear(self, text: str) -> str:
        """Return a text without secrets."""
        return masked(text, self._secrets)

    def _log(self, level: int, text: str) -> None:
        if text and not self._is_quiet:
            log.log(level, "%s: %s", self.label, self.clear(text))


def may_begin(text: str, sentence: str) -> bool:
    """Return true if a text may begin with this sentence. The CDK may have masked any parts of the sentence.

    A masked secret may also reach beyond the sentence, so the text before the first mask decides.
    """
    before, mask, _ = text.partition(_CDK_MASK)
    return text.startswith(sentence) or (bool(mask) and sentence.startswith(before))


#: Begins what is for the connector's developers in a line of its log.
_TRACEBACK = "\nTraceback (most recent call last)"
_FAILURES = ("system_error", "config_error", "transient_error")
_KNOWN = frozenset(["RECORD", "STATE", "LOG", "SPEC", "CONNECTION_STATUS", "CATALOG", "TRACE", "CONTROL"])

__all__ = ["Listener", "LogWarning", "Message", "decoded", "may_begin"]
