"""A process that is ours alone, of the command line or of a worker: what it keeps of memory, and for itself."""

from __future__ import annotations

import gc
import os
from contextlib import suppress

#: Freed memory blocks larger than this go back to the system at once; blocks of usual batches are smaller.
_LARGE_BYTES = 8 << 20

#: Thresholds of the garbage collector, and the threshold of its first run.
_COLLECT, _COLLECT_FIRST = (50_000, 20, 50), 250_000

#: From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def set_up_process() -> None:
    """Set limits and thresholds; to be called before anything large is imported."""
    _forbid_core_dumps()
    _collect_after_imports()
    _return_large_blocks()
    # NumPy's linear algebra, which records never need, would start a thread for each processor. Each of them waits
    # actively for a tenth of a second: a third of a small run's CPU time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _forbid_core_dumps() -> None:
    """Write no memory to disk if the process crashes: it holds passwords and records."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _collect_after_imports() -> None:
    """Collect garbage less often, for the first time only after more objects than a small run creates.

    Imports create a hundred thousand objects and no garbage; collecting takes a twentieth of a small run's time.
    """

    def then(_phase: str, _info: dict[str, int]) -> None:
        gc.set_threshold(*_COLLECT)
        gc.callbacks.remove(then)

    gc.callbacks.append(then)
    gc.set_threshold(_COLLECT_FIRST, *_COLLECT[1:])


def _return_large_blocks() -> None:
    """Make glibc return each large freed block to the system.

    By default it keeps up to twice the largest freed block, for each thread.
    """
    import ctypes

    with suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES)
