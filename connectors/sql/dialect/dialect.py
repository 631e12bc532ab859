"""What differs from one SQL system to the next: one value of six parts."""

from __future__ import annotations

from msgspec import Struct

from ..identifiers import Naming
from .catalog import Catalog
from .facts import Facts
from .tables import Tables
from .types import Types
from .write_statements import Writes


class Dialect(Struct, kw_only=True):
    """One SQL system. Each system has a function `dialect` that puts its parts together."""

    naming: Naming
    #: Replaced by the first connection where only a server can tell.
    facts: Facts
    types: Types
    catalog: Catalog
    tables: Tables
    writes: Writes

    @property
    def name(self) -> str:
        """Return the system's name."""
        return self.naming.name


__all__ = ["Dialect"]
