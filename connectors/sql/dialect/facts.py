"""Facts about one SQL system that decide how a load goes."""

from __future__ import annotations

from msgspec import Struct

#: A table of more records is not emptied by deleting them.
REFILL_RECORDS = 10_000


class Facts(Struct, frozen=True, kw_only=True):
    """What a system can do, and the words that each system spells otherwise."""

    #: Type and default expression of times in the ledger.
    timestamp_type: str = "timestamp with time zone"
    now: str = "current_timestamp"
    text_type: str = "text"
    bigint_type: str = "bigint"
    #: An append goes into the target itself if it fits; False: it is staged, and inserted after `Writes.begin_commit`.
    appends_directly: bool = True
    #: An append's staging table may become the new target itself.
    adopts_staging: bool = True
    #: A table that is replaced keeps its spelling of names, so it is looked at before its replacement is made.
    keeps_spelling: bool = True
    #: A savepoint can undo what statements did within the transaction.
    has_savepoints: bool = False
    #: Tables are made within the transaction that uses them; False: a load makes its working tables before it.
    makes_in_transaction: bool = True
    #: Makes constraints that are checked at the commit be checked at once; empty: there are none.
    check_now: str = ""
    #: Column that orders records by arrival, to find repeated keys in a replacement whose key is not enforced while
    #: records arrive (`ctid`, `rowid`); empty: there is none.
    arrival: str = ""
    #: New tables refuse NULL where the stream never has one; False: the system takes an empty text for NULL, or may.
    keeps_not_null: bool = True
    #: A replacement gets the key as its primary key before the commit.
    keys_replacements: bool = True
    #: A table takes another one's name; without, replace empties and refills the target.
    renames: bool = True
    #: A replacement of at most so many bytes is written into the same table, if that has at most `refill_records` and
    #: equal columns and key: cheaper than another table, and readers see neither before the commit. 0: never.
    refill_bytes: int = 0
    refill_records: int = REFILL_RECORDS
    #: Most columns of a table, less one that numbers staged records; 0: no limit is known.
    max_columns: int = 0
    #: `#` begins a comment in a statement of the user's.
    has_hash_comments: bool = False
    #: One INSERT may write several records.
    inserts_many: bool = True
    #: One round trip may carry several statements.
    joins_statements: bool = False
    #: Outside of a transaction that was begun, each statement is one.
    commits_alone: bool = False
    #: ALTER TABLE takes effect at once and stays, whatever becomes of the transaction.
    alters_at_once: bool = False
    #: ALTER TABLE changes the type of a column; False: the column is copied into one of the other type.
    alters_types: bool = True
    #: Form of a text that is compared by its characters, whatever the column's collation; of systems that have columns
    #: which are `Column.is_folded`.
    spelled: str = "{}"
    #: Intervals hold nanoseconds; False: microseconds.
    keeps_nanoseconds: bool = False
    #: Dates and timestamps may be infinite, by the numbers that DuckDB takes for that.
    keeps_infinite: bool = False


__all__ = ["REFILL_RECORDS", "Facts"]
