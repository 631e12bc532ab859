"""The differences between SQL systems: one value with six parts."""

from __future__ import annotations

from msgspec import Struct

from ..identifiers import Naming
from .catalog import Catalog
from .facts import Facts
from .tables import Tables
from .types import Types
from .write_statements import Writes


class Dialect(Struct, kw_only=True):
    """One SQL system. A function `dialect` of each system creates it."""

    naming: Naming
    #: The first connection replaces it if only a server knows.
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
