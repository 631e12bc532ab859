"""Failpoints for the engine: see `connectors.failpoints`."""

from connectors.failpoints import FailpointError, failpoint

__all__ = ["FailpointError", "failpoint"]
