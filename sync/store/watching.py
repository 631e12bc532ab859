"""What a run tells those who look at it: its figures while somebody watches, and the log of each attempt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from .statements import insert
from .table_names import PIPELINE_RUN, PROGRESS, RUN_LOG
from .transactions import Transactions

# Waits for nobody: the streams of a run lock its row while they are closed.
_WATCH = f"""UPDATE {PIPELINE_RUN} SET watched_until = :watched_until WHERE id IN (SELECT id FROM {PIPELINE_RUN}
    WHERE id = :run_id AND is_active = TRUE FOR UPDATE SKIP LOCKED)"""
_WRITE_PROGRESS = f"""{insert(PROGRESS, "run_id progress written_at")}
    ON CONFLICT (run_id) DO UPDATE SET progress = excluded.progress, written_at = excluded.written_at"""
_WRITE_LOG = f"""{insert(RUN_LOG, "run_id attempt log")}
    ON CONFLICT (run_id, attempt) DO UPDATE SET log = excluded.log"""
_IS_THERE = f"SELECT id FROM {PIPELINE_RUN} WHERE id = :run_id"
_LOG = f"SELECT log FROM {RUN_LOG} WHERE run_id = :run_id AND attempt = :number"


class Watching:
    """Figures are those of the run's own process; what has ended stands in the rows of its block runs."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def watch(self, run_id: int, seconds: float) -> None:
        """Let the process of an active run write its figures for a time."""
        with self._transactions.write("watch", is_brief=True) as connection:
            until = self._transactions.now(connection) + timedelta(seconds=seconds)
            connection.run(_WATCH, {"run_id": run_id, "watched_until": until})

    def write_progress(self, figures: Mapping[int, Mapping[str, Any]]) -> None:
        """Write the figures of runs, by number."""
        with self._transactions.write("write_progress", is_brief=True) as connection:
            now = self._transactions.now(connection)
            rows = [{"run_id": run_id, "progress": each, "written_at": now} for run_id, each in figures.items()]
            connection.run_many(_WRITE_PROGRESS, rows)

    def save_log(self, run_id: int, attempt: int, log: str, figures: Mapping[str, Any] | None = None) -> None:
        """Write the log of an attempt, and its last figures; not of a run that is pruned."""
        with self._transactions.write("save_log") as connection:
            if connection.row(_IS_THERE, {"run_id": run_id}) is None:
                return
            connection.run(_WRITE_LOG, {"run_id": run_id, "attempt": attempt, "log": log})
            if figures is not None:
                now = self._transactions.now(connection)
                connection.run(_WRITE_PROGRESS, {"run_id": run_id, "progress": figures, "written_at": now})

    def log(self, run_id: int, attempt: int) -> str | None:
        """Return the log of an attempt; None: its process has not written one."""
        with self._transactions.read() as connection:
            found: str | None = connection.value(_LOG, {"run_id": run_id, "number": attempt})
            return found
