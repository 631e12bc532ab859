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

log = logging.getLogger("syncblocks")

#: Most characters of a line that is no message, in the log.
_MOST_SHOWN = 2000

#: Beginning of the CDK's only word of an answer that is no JSON.
_LOST_PAGE = "Failed to parse JSON data using json library"

_LEVELS = {"FATAL": logging.CRITICAL, "WARN": logging.WARNING, "TRACE": logging.DEBUG}


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
        #: The CDK has dropped an answer of the API, and will call its stream complete.
        self.has_lost_page = False

    def printed(self, line: bytes) -> None:
        """Log a line that is no message."""
        self._log(logging.INFO, line[:_MOST_SHOWN].decode("utf-8", "replace").strip())

    def take(self, message: Message) -> None:
        """Take a LOG or CONTROL message; tell once of each type that is unknown."""
        if message.type == "LOG" and isinstance(message.log, dict):
            level = str(message.log.get("level", "INFO"))
            number = _LEVELS.get(level) or getattr(logging, level, logging.INFO)
            text = str(message.log.get("message", ""))
            head, *traceback = text.split(_TRACEBACK, 1)
            self._log(number if isinstance(number, int) else logging.INFO, head)
            if traceback:
                self._log(logging.DEBUG, text)
            self.has_lost_page = self.has_lost_page or text.startswith(_LOST_PAGE)
        elif message.type == "CONTROL" and isinstance(message.control, dict):
            held = message.control.get("connectorConfig")
            config = held.get("config") if isinstance(held, dict) else None
            if message.control.get("type") == "CONNECTOR_CONFIG" and isinstance(config, dict):
                self._on_config(config)
        elif isinstance(message.type, str) and message.type not in _KNOWN and message.type not in self._strange:
            self._strange.add(message.type)
            log.warning("%s: a message of the type %r is left out", self.label, self.clear(message.type[:80]))

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


#: Begins what is for the connector's developers in a line of its log.
_TRACEBACK = "\nTraceback (most recent call last)"
_FAILURES = ("system_error", "config_error", "transient_error")
_KNOWN = frozenset(["RECORD", "STATE", "LOG", "SPEC", "CONNECTION_STATUS", "CATALOG", "TRACE", "CONTROL"])

__all__ = ["Listener", "Message", "decoded"]
