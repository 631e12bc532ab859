"""Ledger rows of a Delta table: each is a file beside the data, and a commit of the table says which file counts.

The transaction `(app id, n)` of a commit names `_syncblocks/<app id>/<n>.json`. It is kept in checkpoints of the log,
and VACUUM leaves folders that begin with `_` alone. A file that no commit names is garbage.
"""

from __future__ import annotations

import json
import secrets
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from ..errors import FatalConnectorError
from ..stream import LedgerKey, LedgerRow

#: Folder of our files within a table's folder.
OURS = "_syncblocks"

#: Folder of the files that loads have written and perhaps not committed, one list for each token.
WRITTEN = f"{OURS}/written"

_VERSION = 1
_APP = "syncblocks-"


class Held(Struct, frozen=True, kw_only=True):
    """What a commit says of one ledger row."""

    #: None: the row was deleted.
    row: LedgerRow | None
    #: Number of the commit that decided what is in the table, or that said so by hand: no RESTORE may come after it.
    mark: int = 0
    #: Version of the table on which that commit was made.
    mark_base: int = -1
    #: Data files that the last commit of a load has added.
    added: tuple[str, ...] = ()


def app_id(key: LedgerKey) -> str:
    """Return the application id of a row: it begins with that of its pipeline."""
    whole = json.dumps([key.pipeline, key.stream, key.destination_table]).encode()
    return app_ids_of(key.pipeline) + blake2b(whole, digest_size=12).hexdigest()


def app_ids_of(pipeline: str) -> str:
    """Return what the application ids of a pipeline's rows begin with."""
    return f"{_APP}{blake2b(pipeline.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}-"


def is_app_id(name: str) -> bool:
    """Tell whether a folder of ours holds rows."""
    return name.startswith(_APP)


def row_file(app: str, number: int) -> str:
    """Return the name of a row's file."""
    return f"{OURS}/{app}/{number}.json"


def next_number(number: int | None) -> int:
    """Return a higher number, which no other writer has: the counter counts commits, the rest is random."""
    return ((0 if number is None else number >> 32) + 1) << 32 | secrets.randbits(32)


def encoded(held: Held) -> bytes:
    """Return the content of a row's file."""
    document = {"version": _VERSION, **msgspec.to_builtins(held, builtin_types=())}
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode()


def decoded(data: bytes, label: str) -> Held:
    """Parse a row's file.

    Raises:
        FatalConnectorError: it is damaged, or of a newer version.
    """
    try:
        document: dict[str, Any] = json.loads(data)
        version = document.pop("version")
        if version == _VERSION:
            return msgspec.convert(document, Held)
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
        raise FatalConnectorError(
            f"{label} is damaged ({type(error).__name__}): restore it from a backup, or drop the table; the next run "
            "writes it anew"
        ) from error
    raise FatalConnectorError(f"{label} was written by a newer version of syncblocks, which alone can go on with it")


__all__ = [
    "OURS",
    "WRITTEN",
    "Held",
    "app_id",
    "app_ids_of",
    "decoded",
    "encoded",
    "is_app_id",
    "next_number",
    "row_file",
]
