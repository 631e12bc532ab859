"""Tables in this process's memory: an example for authors of connectors, and a fake under the same contract.

Source and destination of one `database` name see the same tables, so that tests seed and read back through
`database(name).tables`. The knobs (`delay_s`, `fail_at`, `fail_on` ...) make them slow or broken on purpose.
"""

from .database import MemoryDatabase, database, databases
from .destination import MemoryDestination
from .source import MemorySource

__all__ = ["MemoryDatabase", "MemoryDestination", "MemorySource", "database", "databases"]
