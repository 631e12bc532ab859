"""The console scripts `tap-syncblocks-postgres`, `target-syncblocks-duckdb` and so on."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ..errors import ConnectorConfigError, FatalConnectorError

PREFIXES = {"tap-syncblocks-": "tap", "target-syncblocks-": "target"}


def run_plugin(kind: str, connector: str, arguments: Sequence[str]) -> None:
    """Run a connector as a tap or a target, with singer-sdk's command line.

    Raises:
        ConnectorConfigError: there is no such connector, its driver is not installed, or its config cannot be read.
        FatalConnectorError: a message for a target is none, or does not hold to its SCHEMA.
        SystemExit: always, at the end.
    """
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # messages are UTF-8, whatever the locale
    name = f"{kind}-syncblocks-{connector}"
    if kind == "tap":
        from .as_tap import tap_class

        tap = tap_class(connector)
        _check_config(connector, arguments)
        tap.cli(list(arguments), prog_name=name)
    else:
        from .as_target import UNREADABLE, target_class

        target = target_class(connector)
        _check_config(connector, arguments)
        try:
            target.cli(list(arguments), prog_name=name)
        except UNREADABLE as error:
            raise FatalConnectorError(f"a message of the tap cannot be read: {' '.join(str(error).split())}") from error


def _check_config(connector: str, arguments: Sequence[str]) -> None:
    for option, file in pairwise(arguments):
        if option != "--config" or file == "ENV":
            continue
        try:
            json.loads(Path(file).read_bytes())
        except OSError as error:
            text = f"--config: {file} cannot be read: {error.strerror}"
            raise ConnectorConfigError(text, connector=connector) from error
        except (ValueError, RecursionError) as error:
            raise ConnectorConfigError(f"--config: {file} is not JSON: {error}", connector=connector) from error


def main() -> None:
    """Entry point of all console scripts; the name of the script says which connector."""
    from ..errors import ConnectorError

    name = Path(sys.argv[0]).stem
    for prefix, kind in PREFIXES.items():
        if name.startswith(prefix):
            try:
                run_plugin(kind, name.removeprefix(prefix), sys.argv[1:])
            except ConnectorError as error:
                sys.exit(f"{name}: {error}")
    sys.exit(f"{name}: the program's name must be tap-syncblocks-<connector> or target-syncblocks-<connector>")
