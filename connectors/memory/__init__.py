"""Tables in the memory of the process: an example for authors of connectors, and a fake under the real contract.

A source and a destination with the same `database` see the same tables: tests seed and read back through
`database(name).tables`. Settings such as `delay_s`, `fail_at` and `fail_on` make them slow, or fail on purpose.
"""

from .database import MemoryDatabase, database, databases
from .destination import MemoryDestination
from .source import MemorySource

__all__ = ["MemoryDatabase", "MemoryDestination", "MemorySource", "database", "databases"]
