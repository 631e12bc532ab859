"""Where a run store lives: its URL, and for SQLite the file and the file system below it."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

from syncblocks.connectors.database_files import add_store
from syncblocks.connectors.local_files import make_private_folder, sqlite_files, unwritable
from syncblocks.connectors.struct_helpers import Guarded, replace

from ..errors import ConfigError, StateError
from ..failpoints import failpoint

#: File systems without the shared memory and locks that SQLite's WAL needs.
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "gpfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse", "fuse.davfs", "fuse.cephfs"}
)

#: What to do about a file that SQLite cannot read, or whose rows do not fit together.
DAMAGED = (
    "it is damaged. Put a copy back, or move it and its `-wal` away to start without history (bookmarks are in the "
    "destination's ledger)"
)


class StoreLocation(Guarded, frozen=True, kw_only=True):
    """Where a store is."""

    _hidden = ("uri",)

    #: The URL without its password.
    shown: str
    #: SQLite's file, absolute; None: a PostgreSQL server.
    path: Path | None = None
    #: The server's address, with credentials.
    uri: str = ""


def locate(url: str, folder: Path | None = None) -> StoreLocation:
    """Read a store's URL; a relative SQLite path counts from `folder`.

    Raises:
        ConfigError: neither a SQLite file nor PostgreSQL.
    """
    kind, separator, rest = url.partition("://")
    if not separator:
        raise _not_a_store("it is no URL")
    if kind in ("postgresql", "postgres", "postgresql+psycopg"):
        from syncblocks.connectors.network import CONNECT_TIMEOUT_S, NETWORK_TIMEOUT_S
        from syncblocks.connectors.postgres.settings import parse_address
        from syncblocks.connectors.settings import refuse_ambiguous

        try:
            refuse_ambiguous(url, other="PGUSER and PGPASSWORD in the environment")
        except ValueError as error:
            raise ConfigError(f"store: {error}", key="store") from None
        address = parse_address(f"postgresql://{rest}")
        public = {name: value for name, value in address.parameters.items() if "password" not in name.lower()}
        limited = address.limited(CONNECT_TIMEOUT_S, NETWORK_TIMEOUT_S)
        plain = replace(address, password="", parameters=public)
        return StoreLocation(shown=plain.uri(application_name=False, is_libpq=False), uri=limited.uri())
    if kind not in ("sqlite", "sqlite+pysqlite"):
        raise _not_a_store(f"{kind!r} is not supported")
    slash, name = rest[:1], rest[1:]
    if slash != "/" or name in ("", ":memory:") or name.startswith("file:"):
        raise _not_a_store("it names no file")
    if "?" in name:
        raise _not_a_store("SQLite takes no options behind a `?`")
    path = Path(name).expanduser()
    if not path.is_absolute():
        from ..config.current_folder import absolute  # opening a store needs no YAML

        path = absolute((folder or Path()) / path)
    add_store(path)
    return StoreLocation(shown=f"sqlite:///{path}", path=path)


def ensure_file(path: Path, create: Callable[[Path], None]) -> None:
    """Create the SQLite file and its folder if missing; refuse a file that is no store.

    The file appears whole or not at all: an empty file in its place is damage, never "no history".
    """
    _refuse_network(path.parent)
    if not path.exists():
        # The folder may hold secrets beside the store: it is for its owner only.
        make_private_folder(path.parent)
        _create(path, create)
    # By its status alone: whoever opens and closes the file drops the locks that this process has on it. What no SQLite
    # database is shows at the first statement (`Sqlite.way_out`).
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise StateError(f"run store {path} is no file: set `store` to another place")
    if status.st_size < 2:  # SQLite takes one byte for none, and makes a database of either
        raise StateError(f"run store {path} is empty: {DAMAGED}")
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        path.chmod(0o600)


def permission_hint(path: Path) -> str:
    """Return what SQLite's file lacks to be written by this user, with the ways out; nothing if it lacks nothing."""
    files = (path, *sqlite_files(path))
    closed = unwritable(*files)
    if closed is None:
        return ""
    if closed in files or closed.is_dir():
        return f"; this user may not write {closed}: give the permission, or set `store` to another place"
    return f"; {closed} is no folder: move it away, or set `store` to another place"


def _create(path: Path, create: Callable[[Path], None]) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.new")
    draft.touch(mode=0o600)
    try:
        create(draft)
        failpoint("store.create.before")
        with contextlib.suppress(FileExistsError):  # another process made the store first; both files are the same
            path.hardlink_to(draft)
        failpoint("store.create.after")
    except StateError as error:
        raise type(error)(error.message.replace(draft.name, path.name)) from error
    finally:
        for left in path.parent.glob(f"{glob.escape(draft.name)}*"):  # SQLite's files beside it, too
            left.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_network(folder: Path) -> None:
    kind = file_system(folder)
    if kind in NETWORK_FILE_SYSTEMS:
        raise StateError(
            f"run store in {folder}: SQLite cannot be shared over a network file system ({kind}). "
            "Set `store` to a local path or to a PostgreSQL URL"
        )


def file_system(folder: Path, mounts: str | None = None) -> str | None:
    """Return the type of the file system below a folder that need not exist yet; None if the system does not tell."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    target = folder.resolve()
    best: tuple[int, str | None] = (-1, None)
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        # Spaces and backslashes in a mount point are octal escapes.
        point = Path(left.split()[4].encode("utf-8", "surrogateescape").decode("unicode_escape"))
        if target.is_relative_to(point) and len(point.parts) >= best[0]:  # a later mount covers an earlier one
            best = (len(point.parts), right.split()[0])
    return best[1]


def _not_a_store(reason: str) -> ConfigError:
    # The URL itself is not shown: it may hold a password.
    return ConfigError(
        f"the run store cannot be opened: {reason}",
        key="store",
        allowed=("sqlite:///PATH", "postgresql://HOST/DATABASE"),
    )
