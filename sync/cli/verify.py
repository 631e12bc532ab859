"""`syncblocks verify`: compare source and destination, and repair the destination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import formatting
from .console import Console
from .options import (
    Moments,
    common,
    file_argument,
    moment_options,
    open_pipeline,
    stream_option,
    tag_option,
    variable_option,
)
from .pipeline_file import file_words
from .run import result_document, show_result

if TYPE_CHECKING:
    from syncblocks.connectors.checksums import KeyRange

    from ..api import Compared
    from ..verify.verification import StreamVerification

#: Most lines of each kind for a stream; --json shows all.
SHOWN = 10


@click.command("verify", short_help="Compare both sides; name the differences.")
@common
@variable_option
@stream_option
@tag_option
@click.option("--repair", is_flag=True, help="Sync the ranges that differ, and compare again.")
@moment_options
@file_argument
def verify_command(
    console: Console,
    file: Path | None,
    streams: tuple[str, ...],
    tags: tuple[str, ...],
    variables: tuple[tuple[str, Any], ...],
    repair: bool,
    moments: Moments,
) -> int:
    """Compare source and destination by checksums that the databases compute; show the differences.

    Writes nothing without --repair, but that merged LOG_BASED streams are run first, up to the moment at which they are
    compared. Exit code 1 if a stream still differs or could not be compared.
    """
    from ..api import compared
    from ..run.pipeline import run_pipeline
    from ..verify.verification import DIFFERS, FAILED

    pipeline = open_pipeline(console, file, variables, **moments._asdict())

    def look() -> Compared:
        found = compared(pipeline, streams, tags, with_repairs=repair)
        if not console.is_json:
            show(console, *found, file_words(pipeline))
        return found

    before, left_out = look()
    found = before
    repairs = {each.stream: each.repair for each in found if each.repair is not None}
    result = None
    if repairs:
        result = run_pipeline(pipeline, repairs=repairs)
        if not console.is_json:
            console.echo()
            show_result(console, result, file_words(pipeline))
            console.echo()
        found = look().streams
    if console.is_json:
        more = {} if result is None else {"repair": result_document(result), "before": [document(e) for e in before]}
        console.emit(
            {
                "type": "verification",
                "pipeline": pipeline.pipeline,
                "streams": [document(e) for e in found],
                "left_out": dict(left_out),
                **more,
            }
        )
    is_wrong = any(each.verdict in (DIFFERS, FAILED) for each in found)
    return 1 if is_wrong else 0 if result is None else result.exit_code


def document(found: StreamVerification) -> dict[str, Any]:
    """Return a verification as JSON."""
    comparison = found.comparison
    return {
        "stream": found.stream,
        "destination_table": found.destination_table,
        "verdict": found.verdict,
        "source_records": found.source_records,
        "destination_records": found.destination_records,
        "key": list(found.key),
        "ranges": [
            {
                "from": _key(found, each.keys.start),
                "to": _key(found, each.keys.end),
                "source_records": each.source_records,
                "destination_records": each.destination_records,
            }
            for each in (comparison.ranges if comparison else ())
        ],
        "records": [
            {"key": _key(found, each.key), "kind": each.kind, "columns": list(each.columns)}
            for each in (comparison.records if comparison else ())
        ],
        "are_all_records_named": comparison is None or comparison.is_complete,
        "changed_since": comparison.changed_since if comparison else 0,
        "notes": list(found.notes),
    }


def show(console: Console, found: Sequence[StreamVerification], left_out: Mapping[str, str], file: str) -> None:
    """Print a table of all streams, then their differences. `file`: see `file_words`."""
    from ..plan.selection import left_out_by_when

    console.table(
        ["stream", "verdict", "source", "destination", "destination table"],
        [
            [
                each.stream,
                each.verdict,
                formatting.count(each.source_records) or "-",
                formatting.count(each.destination_records) or "-",
                each.destination_table,
            ]
            for each in found
        ],
        right=["source", "destination"],
    )
    for name, when in left_out.items():
        console.echo(left_out_by_when(name, when, "not compared"))
    for each in found:
        for note in each.notes:
            console.warn(f"{each.stream}: {note}")
        if each.verdict == "differs" and each.comparison is not None:
            _show_differences(console, each)
    differing = [each for each in found if each.verdict == "differs" and each.key]
    steps = [f"{each.stream}: {each.remedy}" for each in differing if each.remedy]
    if any(not each.remedy for each in differing):
        steps.insert(0, f"`syncblocks verify{file} --repair` syncs the differences, and compares again")
    if steps:
        console.echo()
    for number, step in enumerate(steps):
        console.echo(f"{'      ' if number else 'next: '}{step}", color="yellow")


def _show_differences(console: Console, found: StreamVerification) -> None:
    comparison = found.comparison
    assert comparison is not None
    if not found.key:
        return
    console.echo()
    console.echo(f"{found.stream}: {formatting.plural(len(comparison.ranges), 'range')} of keys differ", color="red")
    for each in comparison.ranges[:SHOWN]:
        counts = (
            f"{formatting.count(each.source_records)} in the source, {formatting.count(each.destination_records)} there"
        )
        console.echo(f"  {range_words(found.key, each.keys)}: {counts}")
    _show_rest(console, len(comparison.ranges))
    if not comparison.records:
        return
    certain = "" if comparison.is_complete else "at least "
    console.echo(f"  {certain}{formatting.plural(len(comparison.records), 'record')}:")
    for record in comparison.records[:SHOWN]:
        columns = f" in {', '.join(record.columns)}" if record.columns else ""
        console.echo(f"    {key_words(found.key, record.key)}: {record.kind}{columns}")
    _show_rest(console, len(comparison.records), "  ")


def _show_rest(console: Console, number: int, indent: str = "") -> None:
    if number > SHOWN:
        console.echo(f"{indent}  ... and {number - SHOWN:,} more (--json shows them)")


def range_words(names: Sequence[str], keys: KeyRange) -> str:
    """Return `id from 1001 to before 2001`."""
    if keys.start is None and keys.end is None:
        return "all keys"
    if keys.start is None:
        return f"to before {key_words(names, keys.end)}"
    if keys.end is None:
        return f"from {key_words(names, keys.start)}"
    return f"from {key_words(names, keys.start)} to before {key_words(names, keys.end)}"


def key_words(names: Sequence[str], key: Sequence[str | None] | None) -> str:
    """Return `id=1001`."""
    return ", ".join(f"{name}={formatting.cut(text, 40)}" for name, text in zip(names, key or (), strict=False))


def _key(found: StreamVerification, key: Sequence[str | None] | None) -> dict[str, str | None] | None:
    return None if key is None else dict(zip(found.key, key, strict=True))
