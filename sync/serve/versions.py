"""Servers of one store are of one version: another one may write what this one does not understand."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import version

from ..errors import StateError
from ..store.servers import LiveServer


@cache
def own_version() -> str:
    """Return the version of this program."""
    return version("syncblocks")


def refuse_other_versions(servers: Iterable[LiveServer]) -> None:
    """Raise if a server of another version lives.

    Raises:
        StateError: names both versions.
    """
    for each in servers:
        if each.version != own_version():
            theirs = each.version or "without a version"
            raise StateError(
                f"a server of syncblocks {theirs} uses this run store ({each.owner}, folder {each.folder}), this one "
                f"is {own_version()}: stop that server, or start it anew with this version"
            )
