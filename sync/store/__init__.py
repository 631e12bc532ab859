"""The run store: see `store.Store`."""

from .model import LostRun
from .store import Store

__all__ = ["LostRun", "Store"]
