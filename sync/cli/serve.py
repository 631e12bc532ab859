"""`syncblocks serve`: start the pipelines of a folder when they are due."""

from __future__ import annotations

import errno
import os
import re
import shlex
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .console import Console
from .formatting import plural
from .options import common

if TYPE_CHECKING:
    from ..config.store_place import StorePlace
    from ..serve.web.served import Served

#: Seconds between two turns, and between two looks at the output that is kept.
TURN_S, OUTPUT_S = 1.0, 3600.0


@click.command("serve", short_help="Start the pipelines of a folder when they are due.")
@common
@click.option(
    "--max-runs",
    type=click.IntRange(1, 1000),
    default=lambda: 2 * (os.cpu_count() or 1),
    show_default="2 for each core",
    metavar="N",
    help="Most pipelines of the folder that run at once.",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where pages and API answer.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8400, show_default=True, help="0: a free one.")
@click.option(
    "--public-url",
    "public_urls",
    multiple=True,
    metavar="URL",
    help="An address under which people reach the server; repeatable.",
)
@click.option(
    "--alert",
    "alert_variable",
    metavar="NAME",
    help="Tell what is wrong to the Apprise URLs of this environment variable.",
)
@click.option(
    "--heartbeat",
    "heartbeat_variable",
    metavar="NAME",
    help="Call the URL of this environment variable each minute.",
)
@click.option("--no-pages", is_flag=True, help="Only start what is due: no pages and no API. Needs no extra.")
@click.option("--stop-runs", is_flag=True, help="Stop the runs that this server has started when it is stopped.")
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
def serve_command(
    console: Console,
    folder: Path | None,
    max_runs: int,
    no_pages: bool,
    stop_runs: bool,
    host: str,
    port: int,
    public_urls: tuple[str, ...],
    alert_variable: str | None,
    heartbeat_variable: str | None,
) -> int:
    """Start the pipelines of a folder (default: the current one) by the `schedule` in their files, and show them.

    Takes the files *.yaml and *.yml that have a source and a destination, and reads them again when they change. Each
    run is a process of its own, which goes on when the server ends.
    """
    from ..clock import Clock
    from ..config.current_folder import absolute
    from ..config.private_folder import tick_folder
    from ..freshness import alert_urls, heartbeat_url
    from ..serve import PipelineFiles, Server
    from ..serve.background import Every
    from ..serve.children import Children
    from ..serve.outsiders import ALERT_S, HEARTBEAT_S, Alerts, Heartbeat
    from ..serve.signals import Signals
    from ..serve.versions import refuse_other_versions
    from ..store import Store

    if sys.platform == "win32":
        raise click.UsageError("serve does not run on Windows: let the Task Scheduler start `syncblocks run FILE`")
    if not no_pages:
        _demand_extra()
    folder = absolute(Path() if folder is None else folder)
    alerted = None if alert_variable is None else alert_urls(alert_variable)
    beat = None if heartbeat_variable is None else heartbeat_url(heartbeat_variable)
    place = store_of(folder)
    console.hide(place.secret_values)
    clock = Clock()

    def say(text: str, level: str) -> None:
        at = f"{clock.now():%Y-%m-%dT%H:%M:%SZ}"
        if console.is_json:
            console.emit({"type": "log", "at": at, "level": level, "message": text})
        else:
            console.echo(f"{at} {text}", err=True, color="yellow" if level == "warning" else None)

    children = Children(tick_folder(place.url, folder))
    refuse_other_versions(Store.servers_of(place.url))

    def end() -> None:
        if stop_runs:
            children.stop()
        say("stopped while the run store does not answer; runs go on by themselves", "warning")
        os._exit(0)

    with ExitStack() as stack:
        listener = None if no_pages else stack.enter_context(_bound(host, port, public_urls))
        store = stack.enter_context(Store.open(place.url))
        signals = stack.enter_context(Signals(end))
        files = PipelineFiles(folder, place.url, clock)
        urls: tuple[str, ...] = ()
        if listener is not None:
            from ..serve.web.served import addresses

            urls = addresses(host, listener.getsockname()[1], public_urls)
        url = next(iter(urls), None)
        server = Server(store, folder, files, children, max_runs=max_runs, clock=clock, say=say, url=url)
        served = None
        if listener is not None:
            from ..serve.web.app import make_app
            from ..serve.web.listening import Listening
            from ..serve.web.served import Served

            served = Served(
                store=store,
                files=files,
                folder=folder,
                clock=clock,
                urls=urls,
                redactor=console.redactor,
                is_stopping=lambda: signals.stops > 0,
                why_not_ready=server.why_not_ready,
                output_of=children.log_of,
                alert_variable=alert_variable,
            )
            stack.enter_context(Listening(make_app(served), listener))
        say(f"serving {folder}; run store {store.url}; at most {plural(max_runs, 'run')} at once", "info")
        if served is not None:
            say(f"pages and API: {served.url}", "info")
            _tell_sign_in(console, served)
        if alerted is not None:
            alerts = Alerts(store, folder, files, server, alerted, clock, say)
            stack.enter_context(Every(ALERT_S, alerts.look, name="alert", say=say))
        if beat is not None:
            heart = Heartbeat(server, beat, clock, say)
            stack.enter_context(Every(HEARTBEAT_S, heart.beat, name="heartbeat", say=say))
        prune_at = clock.monotonic()
        while not signals.stops:
            if clock.monotonic() >= prune_at:
                children.prune()
                prune_at += OUTPUT_S
            server.turn()
            signals.wait(TURN_S)
        server.leave()
        signals.heard()
        if stop_runs:
            children.stop()
            say(f"stopping; waiting for {plural(len(children.runs), 'run')} to stop", "info")
            while signals.stops == 1 and (children.runs or children.recoveries):
                signals.wait(TURN_S)
                children.reap()
        else:
            say(f"stopped; {plural(len(children.runs), 'run')} left alone", "info")
    return 0


def _demand_extra() -> None:
    from ..errors import ConfigError

    try:
        from ..serve.web import app, listening  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "syncblocks":
            raise
        way = "pip install 'syncblocks[serve]', or serve without pages and API by --no-pages"
        raise ConfigError(f"the pages of serve need {error.name}: {way}") from None


def _tell_sign_in(console: Console, served: Served) -> None:
    """Tell the link that signs in: it is a secret, so that no log gets it but that of a program which asks for JSON."""
    from ..serve.web.served import sign_in_link

    if console.is_json:
        told = {"url": served.url, "sign_in_url": sign_in_link(served.url, served.store.access)}
        console.emit({"type": "serve", "folder": str(served.folder), **told})
    elif sys.stderr.isatty():
        console.echo(f"sign in, once and within 10 minutes: {sign_in_link(served.url, served.store.access)}", err=True)
    else:
        console.echo(f"to sign in: syncblocks token link {shlex.quote(str(served.folder))}", err=True)


def _bound(host: str, port: int, public_urls: tuple[str, ...]) -> socket.socket:
    from ..errors import ConfigError
    from ..serve.web.listening import bound_socket
    from ..serve.web.served import is_loopback

    for url in public_urls:
        # As browsers write it: without a path, and a name with other letters in its form xn--.
        found = re.fullmatch(r"https?://(?:[\w.-]+|\[[\da-f:.]+\])(?::(\d{1,5}))?", url, re.ASCII | re.IGNORECASE)
        if found is None or int(found[1] or 1) not in range(1, 65_536):
            raise click.UsageError(f"--public-url {url!r} is not of the form https://HOST or https://HOST:PORT")
    if not is_loopback(host) and not public_urls:
        raise click.UsageError(f"--host {host} is reached from outside: say with --public-url under which address")
    try:
        return bound_socket(host, port)
    except OSError as error:
        way = "another program listens there: choose another --port" if error.errno == errno.EADDRINUSE else ""
        message = f"{host}:{port} cannot be opened: {way or error.strerror or error}"
        raise ConfigError(message, key="--port") from None


def store_of(folder: Path) -> StorePlace:
    """Return the run store of a folder: that of the first pipeline file that says one.

    Raises:
        ConfigError: there is no folder or no pipeline file, or each of them is wrong.
    """
    from ..config.head import read_head
    from ..errors import ConfigError
    from ..pipeline_files import pipeline_files

    if not folder.is_dir():
        way = ": name the folder of the file" if folder.exists() else ""
        raise ConfigError(f"is no folder{way}", path=str(folder))
    problem = ConfigError("holds no pipeline file: make one with `syncblocks init`", path=str(folder))
    mistakes = []
    for path in pipeline_files(folder):
        try:
            return read_head(path).store()
        except ConfigError as error:
            mistakes.append(error)
    raise next(iter(mistakes), problem)
