"""`syncblocks status`: which pipelines of a folder are late, dead or broken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .completion import complete_paths
from .console import Console
from .formatting import moment
from .options import common

if TYPE_CHECKING:
    from ..freshness import Looked


@click.command("status", short_help="Show which pipelines of a folder are late, dead or broken.")
@common
@click.option(
    "--alert",
    "variable",
    metavar="NAME",
    help="Tell what is new and what is over to the Apprise URLs of this environment variable.",
)
@click.argument(
    "folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]", shell_complete=complete_paths
)
def status_command(console: Console, folder: Path | None, variable: str | None) -> int:
    """Show how the pipelines of a folder stand: last success, age, next run, what is dead or due; the worst first.

    FOLDER is the current one by default. Exit code 1: something is late, dead or broken. 2: a run store could not be
    looked at, or an alert was not sent.

    Reads the pipeline files and their run stores. Opens no source and no destination, runs no code of yours, and
    resolves no secret but that of `store`.
    """
    from ..errors import ConfigError
    from ..freshness import alert, alert_urls, look_at_folder
    from ..freshness.documents import status_document

    folder = folder or Path()
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder", key="FOLDER")
    urls = None if variable is None else alert_urls(variable)
    failures: list[str] = []
    with look_at_folder(folder, needs_store=urls is not None) as look:
        if not look.looked:
            where = "the current folder" if folder == Path() else str(folder)
            raise ConfigError(f"{where} holds no pipeline file", key="FOLDER")
        sent = 0 if urls is None else alert(look, urls, failures.append)
    for text in failures:
        console.warn(text)
    if console.is_json:
        told = {"messages": sent, "failures": failures}
        documents = [status_document(each) for each in look.looked]
        console.emit({"type": "status", "pipelines": documents, "alert": None if urls is None else told})
    else:
        _show(console, look.looked)
    if failures or not look.is_whole:
        return 2
    return int(any(each.is_wrong for each in look.looked))


def _show(console: Console, looked: tuple[Looked, ...]) -> None:
    from ..freshness.judge import span

    rows = [
        [
            each.pipeline,
            _words(each),
            moment(each.last_success),
            "" if each.age_s is None else span(each.age_s),
            moment(each.next_run),
        ]
        for each in looked
    ]
    console.table(["pipeline", "status", "last success", "age", "next run"], rows)
    for each in looked:
        for finding in each.judgement.findings:
            stream = f", stream {finding.stream}" if finding.stream else ""
            console.echo(f"{each.pipeline}{stream}: {finding.what}", color="yellow")


def _words(each: Looked) -> str:
    if each.word == "late":
        return f"late since {moment(each.at)}" + (f" ({each.why})" if each.why else "")
    if each.word == "paused":
        until = f"paused until {moment(each.at)}" if each.at else "paused until it is resumed"
        return f"{until} ({each.why})" if each.why else until
    return f"{each.word} ({each.why})" if each.word in ("waiting", "failed") and each.why else each.word
