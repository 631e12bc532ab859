"""Facts about one SQL system that decide how a load is written."""

from __future__ import annotations

from msgspec import Struct

#: A table with more records is not emptied by DELETE.
REFILL_RECORDS = 10_000


class Facts(Struct, frozen=True, kw_only=True):
    """Abilities of a system, and words that systems spell differently."""

    #: Type and default expression of times in the ledger.
    timestamp_type: str = "timestamp with time zone"
    now: str = "current_timestamp"
    text_type: str = "text"
    bigint_type: str = "bigint"
    #: A text column of only NULL gets another type in place.
    retypes_columns: bool = True
    #: An append writes into a fitting target directly; False: it is staged, and inserted after `Writes.begin_commit`.
    appends_directly: bool = True
    #: An append's staging table can become the new target.
    adopts_staging: bool = True
    #: A replaced table keeps its spelling of names, so the target is read before its replacement is created.
    keeps_spelling: bool = True
    #: A savepoint can roll back statements within the transaction.
    has_savepoints: bool = False
    #: Tables can be created within the transaction that uses them; False: working tables are created before it.
    makes_in_transaction: bool = True
    #: Statement that makes deferred constraints immediate; empty: there are none.
    check_now: str = ""
    #: Column that orders records by arrival, to find repeated keys in a replacement without an enforced key
    #: (`ctid`, `rowid`); empty: there is none.
    arrival: str = ""
    #: New tables refuse NULL where the stream has none; False: the system treats, or may treat, an empty text as NULL.
    keeps_not_null: bool = True
    #: A replacement gets its primary key before the commit.
    keys_replacements: bool = True
    #: A table can take another table's name; if not, replace empties and refills the target.
    renames: bool = True
    #: Largest replacement in bytes that is written into the same table, if that has at most `refill_records` and
    #: equal columns and key: cheaper than a new table, and readers see no change before the commit. 0: never.
    refill_bytes: int = 0
    refill_records: int = REFILL_RECORDS
    #: Maximum of columns of a table, minus the one that numbers staged records; 0: unknown.
    max_columns: int = 0
    #: `#` begins a comment in a user's statement.
    has_hash_comments: bool = False
    #: One INSERT may write several records.
    inserts_many: bool = True
    #: One round trip may carry several statements.
    joins_statements: bool = False
    #: Without an explicit BEGIN, each statement is a transaction.
    commits_alone: bool = False
    #: ALTER TABLE takes effect at once and survives a rollback.
    alters_at_once: bool = False
    #: ALTER TABLE can change a column's type; False: the values are copied into a new column.
    alters_types: bool = True
    #: SQL form in which a text is compared by its characters, ignoring collations; for systems with columns
    #: that are `Column.is_folded`.
    spelled: str = "{}"
    #: Intervals have nanoseconds; False: microseconds.
    keeps_nanoseconds: bool = False
    #: Dates and timestamps may be infinite, encoded with DuckDB's numbers.
    keeps_infinite: bool = False


__all__ = ["REFILL_RECORDS", "Facts"]
