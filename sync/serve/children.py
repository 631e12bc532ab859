"""The processes of a server: `run --tick` and `recover`."""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from subprocess import Popen

from ..detached_process import start_detached
from ..store.owner import Owner, current_owner, signal_process
from .files import ServedFile

#: Output of a tick's process is kept so long.
_KEEP_S = 7 * 86_400


class Children:
    """Started processes that have not ended. They outlive the server."""

    def __init__(self, folder: Path) -> None:
        """Write output into a folder."""
        self._folder = folder
        #: Of ticks, by number; and of `recover`, by pipeline.
        self.runs: dict[int, tuple[ServedFile, Popen[bytes]]] = {}
        self.recoveries: dict[str, Popen[bytes]] = {}
        #: Pipeline and process of `runs prune`.
        self._prune: tuple[str, Popen[bytes]] | None = None

    @property
    def running(self) -> frozenset[str]:
        """Pipelines of the processes of ticks."""
        return frozenset(file.pipeline for file, _ in self.runs.values())

    @property
    def recovering(self) -> frozenset[str]:
        """Pipelines of the processes of `recover`."""
        return frozenset(self.recoveries)

    def log_of(self, tick: int) -> Path:
        """Return the file with the output of a tick's process."""
        return self._folder / f"{tick}.log"

    def run(self, file: ServedFile, tick: int) -> None:
        """Start the process of a tick."""
        arguments = ["run", str(file.path), "--tick", str(tick)]
        self.runs[tick] = (file, start_detached(arguments, folder=file.path.parent, log_file=self.log_of(tick)))

    def recover(self, file: ServedFile) -> None:
        """Start a process that ends what is dead, and delivers what is due."""
        log_file = self._folder / f"recover-{file.path.stem}.log"
        log_file.unlink(missing_ok=True)
        arguments = ["recover", str(file.path)]
        self.recoveries[file.pipeline] = start_detached(arguments, folder=file.path.parent, log_file=log_file)

    @property
    def is_pruning(self) -> bool:
        """Whether a process removes old runs, or `pruned` has not told of it yet."""
        return self._prune is not None

    def prune_runs(self, file: ServedFile) -> None:
        """Start a process that removes the runs past the limits of the file's `history`."""
        log_file = self._folder / f"prune-{file.path.stem}.log"
        log_file.unlink(missing_ok=True)
        arguments = ["runs", "prune", str(file.path)]
        self._prune = (file.pipeline, start_detached(arguments, folder=file.path.parent, log_file=log_file))

    def pruned(self) -> tuple[str, int] | None:
        """Return pipeline and exit code of the process that has removed old runs, once it has ended."""
        if self._prune is None or (code := self._prune[1].poll()) is None:
            return None
        pipeline, self._prune = self._prune[0], None
        return pipeline, code

    def reap(self) -> dict[int, tuple[ServedFile, int]]:
        """Forget the processes that have ended; return the ticks among them with their exit codes."""
        ended = {
            tick: (file, code) for tick, (file, process) in self.runs.items() if (code := process.poll()) is not None
        }
        self.runs = {tick: each for tick, each in self.runs.items() if tick not in ended}
        self.recoveries = {name: process for name, process in self.recoveries.items() if process.poll() is None}
        return ended

    @staticmethod
    def signal(owner: Owner, number: signal.Signals) -> bool:
        """Send a signal to a process of this machine, whoever started it; False: it is not visible from here."""
        return signal_process(owner, current_owner(), number)

    def stop(self) -> None:
        """Ask all of them to stop: each ends its run as after Ctrl-C."""
        for process in (*(process for _, process in self.runs.values()), *self.recoveries.values()):
            process.send_signal(signal.SIGTERM)

    def prune(self) -> None:
        """Delete output that is older than a week."""
        with contextlib.suppress(OSError):
            for path in self._folder.glob("*.log"):
                if time.time() - path.stat().st_mtime > _KEEP_S:
                    path.unlink(missing_ok=True)
