"""`syncblocks token`: who may use the API of a server, and links that sign in to its pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import Group
from .completion import complete_paths
from .console import Console
from .formatting import moment
from .options import common

if TYPE_CHECKING:
    from ..store import Store

_folder = click.argument(
    "folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]", shell_complete=complete_paths
)
_YEARS_10_S = 3650 * 86_400


@click.group("token", short_help="Make, list and revoke API tokens; link to the pages.", cls=Group)
def token_command() -> None:
    """Make, list and revoke tokens of the API of `serve`, and links to its pages."""


def _read_span(_ctx: click.Context, _param: click.Parameter, text: str | None) -> timedelta | None:
    from ..config.value_types import is_span, span_s

    if text is None:
        return None
    if not is_span(text, 60, _YEARS_10_S):
        raise click.BadParameter(f"{text!r} is no span of time from 1m to 3650d, such as 90d")
    return timedelta(seconds=span_s(text) or 0)


@token_command.command("create")
@common
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    metavar="SCOPE",
    help="read, operate (cancel, retry, deliver, pause) or run:GLOB (start these pipelines); repeatable.",
)
@click.option("--expires", callback=_read_span, metavar="SPAN", help="When it ends by itself, such as 90d.")
@click.argument("name", metavar="NAME")
@_folder
def create_command(
    console: Console, name: str, scopes: tuple[str, ...], expires: timedelta | None, folder: Path | None
) -> int:
    """Make a token of the API, and print its secret: nobody can read it again."""
    with _store(console, folder) as store:
        secret = store.access.make_token(name, scopes, lasts=expires)
    if console.is_json:
        console.emit({"type": "token", "name": name, "token": secret})
    else:
        console.echo_lines(secret)
    return 0


@token_command.command("list")
@common
@_folder
def list_command(console: Console, folder: Path | None) -> int:
    """List the tokens: name, scopes, when each ends and when it was last used. Shows no secret."""
    from syncblocks.connectors.struct_helpers import asdict

    with _store(console, folder) as store:
        tokens = store.access.tokens()
    if console.is_json:
        console.emit({"type": "tokens", "tokens": [asdict(token) for token in tokens]})
        return 0
    rows = [
        [
            token.name,
            ", ".join(token.scopes),
            moment(token.created_at),
            moment(token.expires_at) or "never",
            moment(token.used_at) or "never",
        ]
        for token in tokens
    ]
    console.table(["token", "scopes", "made", "ends", "last used"], rows)
    return 0


@token_command.command("revoke")
@common
@click.argument("name", metavar="NAME")
@_folder
def revoke_command(console: Console, name: str, folder: Path | None) -> int:
    """Let a token open nothing any more, at once."""
    with _store(console, folder) as store:
        store.access.revoke_token(name)
    if console.is_json:
        console.emit({"type": "token", "name": name, "revoked": True})
    else:
        console.echo(f"token {name} revoked")
    return 0


@token_command.command("link")
@common
@_folder
def link_command(console: Console, folder: Path | None) -> int:
    """Print a link that signs a browser in to the pages of the folder's server: once, within 10 minutes."""
    from ..config.current_folder import absolute
    from ..errors import StateError
    from ..serve.web.served import sign_in_link

    folder = absolute(folder or Path())
    with _store(console, folder) as store:
        urls = [each.url for each in store.live_servers() if each.folder == str(folder) and each.url is not None]
        if not urls:
            raise StateError(f"no server of folder {folder} shows pages: start `syncblocks serve`")
        link = sign_in_link(urls[0], store.access)
    if console.is_json:
        console.emit({"type": "link", "url": link})
    else:
        console.echo_lines(link)
    return 0


@contextmanager
def _store(console: Console, folder: Path | None) -> Iterator[Store]:
    from ..config.current_folder import absolute
    from ..store import Store
    from .serve import store_of

    place = store_of(absolute(folder or Path()))
    console.hide(place.secret_values)
    with Store.open(place.url) as store:
        yield store
