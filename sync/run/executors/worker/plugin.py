"""Code in a Dask worker besides streams: the plugin that sends the code, and functions that inspect a worker."""

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
    """Sends an archive to every worker, including workers that join later."""

    def __init__(self, name: str, archive: bytes) -> None:
        self._bundle = Bundle(name, archive)

    def setup(self, worker: Any) -> None:
        """Write the archive's files; if it fails, the first call sends the archive again, and reports the error."""
        with suppress(OSError, SyncError):
            unpack(self._bundle)


def probe(dask_worker: Any) -> dict[str, Any]:
    """Return a worker's identity."""
    me = current_owner()
    threads = dask_worker.state.nthreads
    return {"version": own_version(), "host": me.host, "boot_id": me.boot_id, "threads": threads}


async def release(name: str) -> None:
    """Make the idle children of an archive close their connections, in the background."""
    await asyncio.to_thread(CHILDREN.release, name)
