"""What runs in a Dask worker beside streams: the plugin that brings the code, and functions that look at a worker."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin

from ....errors import SyncError
from ....store.owner import current_owner
from ..bundle import Bundle, own_version, unpack
from .children import CHILDREN


class CodePlugin(WorkerPlugin):  # type: ignore[misc]  # distributed is not always installed
    """Brings an archive to every worker, also to those that join later."""

    def __init__(self, name: str, archive: bytes) -> None:
        self._bundle = Bundle(name, archive)

    def setup(self, worker: Any) -> None:
        """Write the archive's files; where that fails, the first call brings the archive again, and says why."""
        with suppress(OSError, SyncError):
            unpack(self._bundle)


def probe(dask_worker: Any) -> dict[str, Any]:
    """Tell who a worker is."""
    me = current_owner()
    threads = dask_worker.state.nthreads
    return {"version": own_version(), "host": me.host, "boot_id": me.boot_id, "threads": threads}


async def release(name: str) -> None:
    """Make the idle children of an archive close their connections; the worker goes on meanwhile."""
    await asyncio.to_thread(CHILDREN.release, name)
