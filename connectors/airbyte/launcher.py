"""Start a connector that is built on Airbyte's CDK, and let it report the pages that the CDK drops without an error.

The connector's environment runs this file by its path: `python launcher.py PROGRAM ARGUMENT...`. The file imports
nothing of syncblocks, and an environment may have Python 3.9.

The CDK masks secrets in its log, so the text of a line does not show reliably what happened. Inside the process the
text is complete. Each line of the log from WARN on gets a key `syncblocks` with the stream that the thread reads, and
with `is_page_lost`. Where the CDK drops a page without such a line, the launcher writes one.

Every version of the CDK has its own modules. A version that lacks one of the functions below runs without that report.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import runpy
import sys
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

#: Versions of the CDK begin a line like this when they drop an answer.
LOST_PAGE = (
    "Failed to parse JSON data using json library",
    "Response cannot be parsed into json",
    "Response cannot be parsed from XML",
)

log = logging.getLogger("airbyte")


class _Thread(threading.local):
    #: Name of the stream that this thread reads; `None` if it reads no stream.
    stream: str | None = None
    #: True once a line has reported the answer that this thread parses.
    has_reported = False


thread = _Thread()


def main() -> None:
    """Change the CDK, then run the program with the arguments and the module path that it has without a launcher."""
    program = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(program)  # noqa: PTH120 -- as Python does for a program
    for change in (_mark_lines, _name_streams, _report_unparsed, _report_ignored, _report_missing):
        with contextlib.suppress(ImportError, AttributeError):
            change()
    runpy.run_path(program, run_name="__main__")


def _module(name: str) -> Any:
    return importlib.import_module(f"airbyte_cdk.{name}")


def _mark_lines() -> None:
    """Add the key `syncblocks` to the lines of the log."""
    formatter = _module("logger").AirbyteLogFormatter
    original = formatter.format

    def marked(self: Any, record: logging.LogRecord) -> str:
        line: str = original(self, record)
        if record.levelno < logging.WARNING:
            return line
        is_lost = record.__dict__.get("is_page_lost", False) or record.getMessage().startswith(LOST_PAGE)
        thread.has_reported = thread.has_reported or is_lost
        try:
            message = {**json.loads(line), "syncblocks": {"stream": thread.stream, "is_page_lost": is_lost}}
        except (ValueError, TypeError):  # another format than the CDK's
            return line
        return json.dumps(message)

    formatter.format = marked


def _name_streams() -> None:
    """Note which stream a thread reads."""
    reader = _module("sources.streams.concurrent.partition_reader").PartitionReader
    reader.process_partition = _named(reader.process_partition, lambda partition: partition.stream_name())
    enqueuer = _module("sources.streams.concurrent.partition_enqueuer").PartitionEnqueuer
    enqueuer.generate_partitions = _named(enqueuer.generate_partitions, lambda stream: stream.name)


def _named(original: Callable[..., Any], name_of: Callable[[Any], str]) -> Callable[..., Any]:
    @wraps(original)
    def named(self: Any, what: Any, *others: Any, **more: Any) -> Any:
        thread.stream = name_of(what)
        try:
            return original(self, what, *others, **more)
        finally:
            thread.stream = None

    return named


def _report_unparsed() -> None:
    """Report an answer that cannot be parsed without a line of the CDK, such as `null`."""
    parser = _module("sources.declarative.decoders.composite_raw_decoder").JsonParser
    original = parser.parse

    @wraps(original)
    def parse(self: Any, *given: Any, **named: Any) -> Iterator[Any]:
        thread.has_reported = False
        try:
            yield from original(self, *given, **named)
        except Exception as error:
            if not thread.has_reported:
                kind = type(error).__name__
                log.error(
                    "The CDK cannot parse an answer (%s) and takes it for an empty page",
                    kind,
                    extra={"is_page_lost": True},
                )
            raise

    parser.parse = parse


def _report_ignored() -> None:
    """Report an answer with an error that the connector ignores."""
    client = _module("sources.streams.http.http_client").HttpClient
    original = client._handle_error_resolution

    @wraps(original)
    def handle(self: Any, *given: Any, **named: Any) -> Any:
        with contextlib.suppress(AttributeError, LookupError):  # another version of the CDK
            if named["error_resolution"].response_action.name == "IGNORE":
                response = named["response"]
                what = type(named["exc"]).__name__ if response is None else f"HTTP status {response.status_code}"
                log.warning("The connector ignores an answer and its records: %s", what)
        return original(self, *given, **named)

    client._handle_error_resolution = handle


def _report_missing() -> None:
    """Report an answer without the field that has the records, such as an error document with HTTP status 200."""
    extractors = _module("sources.declarative.extractors.dpath_extractor")
    extractors.dpath = _Fields(extractors.dpath)


class _Fields:
    """The module `dpath` as the extractor calls it."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    def get(self, answer: Any, path: Any, *given: Any, **named: Any) -> Any:
        found = self._original.get(answer, path, *given, **named)
        # The CDK takes an answer that it cannot parse, and an empty array, for an empty object.
        if answer not in ({}, []) and (found is None or found is named.get("default")):
            _report_field(path)
        return found

    def values(self, answer: Any, path: Any, *given: Any, **named: Any) -> Any:
        found = self._original.values(answer, path, *given, **named)
        before = path[: path.index("*")]
        if answer not in ({}, []) and before and not found and self._original.get(answer, before, default=None) is None:
            _report_field(before)
        return found


def _report_field(path: Any) -> None:
    log.warning(
        "An answer does not have the field of the records (%s), so no record of it is read", ".".join(map(str, path))
    )


if __name__ == "__main__":
    main()
