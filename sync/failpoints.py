"""Failpoints for the engine: see `syncblocks.connectors.failpoints`."""

from syncblocks.connectors.failpoints import FailpointError, failpoint

__all__ = ["FailpointError", "failpoint"]
