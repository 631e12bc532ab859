"""Runs a scheduler, or a worker with its nanny, until standard input ends; prints its address."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import distributed


async def main(role: str, host: str, scheduler: str = "") -> None:
    """`scheduler`: the address that a worker joins."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    node: Any = (
        distributed.Scheduler(host=host, port=0, dashboard=False)
        if role == "scheduler"
        else distributed.Nanny(scheduler, host=host, nthreads=1, memory_limit=0, dashboard=False)
    )
    async with node:
        sys.stdout.write(f"{node.address}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
