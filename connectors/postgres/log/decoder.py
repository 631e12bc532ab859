"""Blocks of messages -> changes, a table at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from ...arrow.gather import Buffer, Mask, Places, values_at
from .messages import BEGIN, COMMIT, DELETE, INSERT, RELATION, TRUNCATE, UPDATE, Block, Relation
from .tuples import Tuples

_NEW, _KEY, _WHOLE = b"NKO"
#: Highest position of a log.
_MOST_POSITION = 2**64 - 1
_IS_CHANGE = np.zeros(256, bool)
_IS_CHANGE[[INSERT, UPDATE, DELETE]] = True

Numbers = npt.NDArray[np.int64]


class Changes(Struct, frozen=True):
    """Changes of one table in a row, in the order of the log; the tuples hold on to the whole block."""

    relation: Relation
    #: `INSERT`, `UPDATE`, `DELETE` or `TRUNCATE`.
    operations: Buffer
    #: Where the transaction's commit record begins.
    commit_lsns: Numbers
    #: Microseconds since 1970, UTC.
    committed_at: Numbers
    #: From 0, within the transaction and the table.
    numbers: Numbers
    #: Which of the changes have a new tuple: those that insert or update.
    with_new: Places
    new: Tuples
    #: Which have an old one: deletes, updates of the replica identity, and with REPLICA IDENTITY FULL all updates.
    with_old: Places
    old: Tuples
    #: Of these: the old tuple has all columns, not the replica identity's only.
    is_old_whole: Mask


class Transactions(Struct, frozen=True):
    """Transactions in the order of the log; the changes of each follow once it is committed."""

    #: Where their commit records begin in the log.
    commit_lsns: Numbers
    #: Microseconds since 1970, UTC.
    committed_at: Numbers

    def behind(self, other: Transactions | None) -> Transactions:
        """Return these behind others."""
        if other is None:
            return self
        lsns = np.concatenate((other.commit_lsns, self.commit_lsns))
        return Transactions(lsns, np.concatenate((other.committed_at, self.committed_at)))


class Decoder:
    """Reads one stream from a position on; keeps what the server tells once: tables, and the transaction it is in."""

    def __init__(self, is_wanted: Callable[[Relation], bool]) -> None:
        self._is_wanted = is_wanted
        self._relations: dict[int, Relation] = {}
        self._open: Transactions | None = None
        #: Table -> the last transaction that changed it, and how many changes that has had.
        self._counted: dict[int, tuple[int, int]] = {}
        #: Where the last commit that was read ends; 0: none was.
        self.position = 0

    @property
    def is_within(self) -> bool:
        """Tell whether a transaction's changes have begun to come, and not yet ended."""
        return self._open is not None

    def decode(self, messages: Sequence[bytes | memoryview]) -> list[Changes]:
        """Return the changes of some messages, of each wanted table one `Changes` or, where its columns change, more.

        Raises:
            FatalConnectorError: the messages do not keep to the protocol. Read the stream anew from a known position.
        """
        block = Block(messages)
        if not len(block):
            return []
        transactions, of_message = self._transactions(block)
        known = self._known(block)
        where = np.flatnonzero(_IS_CHANGE[block.kinds])
        block.check(block.at[where] + 6 <= block.ends[where], "a change is cut", where)
        tables = values_at(block.buffer, block.at[where] + 1, ">u4")
        truncated = self._truncated(block)
        found = []
        for oid in dict.fromkeys([*np.unique(tables).tolist(), *truncated]):
            of_table = where[tables == oid]
            if emptied := truncated.get(oid):
                of_table = np.sort(np.concatenate((of_table, np.array(emptied, np.int64))))
            definitions = known.get(oid, [])
            bounds = [start for start, _ in definitions]
            if not bounds or of_table[0] < bounds[0]:
                raise block.error(int(of_table[0]), "a change of a table that was not described")
            for start, end, (_, relation) in zip(bounds, [*bounds[1:], len(block)], definitions, strict=True):
                some = of_table[(of_table >= start) & (of_table < end)]
                if len(some) and self._is_wanted(relation):
                    found.append(self._changes(block, relation, some, transactions, of_message[some]))
        return found

    def _transactions(self, block: Block) -> tuple[Transactions, Places]:
        """Return the transactions, and for each message the number of the one that it is in."""
        kinds = block.kinds
        is_begin, is_commit = kinds == BEGIN, kinds == COMMIT
        begun = np.cumsum(is_begin)
        # How many are open behind each message: never more than one.
        are_open = begun - np.cumsum(is_commit) + (self._open is not None)
        block.check((are_open == 0) | (are_open == 1), "a transaction begins or ends within another, or outside of one")
        needs_one = _IS_CHANGE[kinds] | (kinds == TRUNCATE)
        block.check((are_open == 1) | ~needs_one, "a change outside of a transaction")
        transactions = Transactions(*block.begins(np.flatnonzero(is_begin))).behind(self._open)
        ends = np.flatnonzero(is_commit)
        lsns, ended = block.commits(ends)
        block.check(lsns == transactions.commit_lsns[: len(ends)], "a commit is not that of its transaction", ends)
        if len(ends):
            self.position = int(ended[-1]) & _MOST_POSITION  # numpy reads it as a signed number
        of_message = begun - (self._open is None)
        is_left = len(transactions.commit_lsns) > len(ends)
        last = Transactions(transactions.commit_lsns[-1:], transactions.committed_at[-1:])
        self._open = last if is_left else None
        return transactions, of_message

    def _known(self, block: Block) -> dict[int, list[tuple[int, Relation]]]:
        """Return for each table from which message on it is described how; the last one is remembered."""
        known = {oid: [(0, relation)] for oid, relation in self._relations.items()}
        for number in np.flatnonzero(block.kinds == RELATION).tolist():
            relation = block.relation(number)
            if self._relations.get(relation.oid) != relation:
                self._relations[relation.oid] = relation
                known.setdefault(relation.oid, []).append((number, relation))
        return known

    def _truncated(self, block: Block) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for number in np.flatnonzero(block.kinds == TRUNCATE).tolist():
            for oid in dict.fromkeys(block.truncated(number)):
                found.setdefault(oid, []).append(number)
        return found

    def _changes(
        self, block: Block, relation: Relation, numbers: Places, transactions: Transactions, of_change: Places
    ) -> Changes:
        operations = block.kinds[numbers]
        old, with_old, is_old_whole, at = _old_tuples(block, relation, numbers, operations)
        with_new = np.flatnonzero((operations == INSERT) | (operations == UPDATE))
        of_new, at = numbers[with_new], at[with_new]
        block.check(at < block.ends[of_new], "a change is cut", of_new)
        block.check(block.buffer[at] == _NEW, "a change has no new record", of_new)
        new = Tuples(block, of_new, at + 1, len(relation.columns))
        block.check(new.ends == block.ends[of_new], "a record is not as long as its message", of_new)
        return Changes(
            relation=relation,
            operations=operations,
            commit_lsns=transactions.commit_lsns[of_change],
            committed_at=transactions.committed_at[of_change],
            numbers=self._numbered(relation.oid, transactions, of_change),
            with_new=with_new,
            new=new,
            with_old=with_old,
            old=old,
            is_old_whole=is_old_whole,
        )

    def _numbered(self, oid: int, transactions: Transactions, of_change: Places) -> Numbers:
        """Count the changes within each transaction, going on with the one that was open."""
        is_first = np.empty(len(of_change), bool)
        is_first[0], is_first[1:] = True, of_change[1:] != of_change[:-1]
        firsts = np.flatnonzero(is_first)
        numbers: Numbers = np.arange(len(of_change)) - firsts[np.cumsum(is_first) - 1]
        lsn, count = self._counted.get(oid, (-1, 0))
        lsns = transactions.commit_lsns
        if lsns[of_change[0]] == lsn:
            numbers[: firsts[1] if len(firsts) > 1 else len(numbers)] += count
        self._counted[oid] = (int(lsns[of_change[-1]]), int(numbers[-1]) + 1)
        return numbers


def _old_tuples(
    block: Block, relation: Relation, numbers: Places, operations: Buffer
) -> tuple[Tuples, Places, Mask, Places]:
    """Return the old tuples, which changes have one, which of these a whole one, and where new ones begin."""
    at = block.at[numbers] + 5
    kinds = block.buffer[at]
    is_old = ((kinds == _KEY) | (kinds == _WHOLE)) & ((operations == UPDATE) | (operations == DELETE))
    block.check(is_old | (operations != DELETE), "a delete has no old record", numbers)
    with_old = np.flatnonzero(is_old)
    of_old = numbers[with_old]
    old = Tuples(block, of_old, at[with_old] + 1, len(relation.columns))
    at[with_old] = old.ends
    is_delete = operations[with_old] == DELETE
    block.check(~is_delete | (old.ends == block.ends[of_old]), "a record is not as long as its message", of_old)
    return old, with_old, kinds[with_old] == _WHOLE, at


__all__ = ["Changes", "Decoder"]
