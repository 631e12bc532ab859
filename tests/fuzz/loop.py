"""What a fuzzer does, in a process of its own, which may crash or hang: `python -m tests.fuzz.loop NAME SEED SECONDS`.

A fuzzer tries something damaged and returns how that ended: an error that the product means for it is an end like any
other. Whatever else it raises ends the process. The number of each try is written before it begins, so that the parent
knows which one ended it; `python -m tests.fuzz.loop NAME SEED 0` tries that one alone.
"""

from __future__ import annotations

import faulthandler
import importlib
import logging
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

#: Gets what the parent has prepared: a file, or a URL.
Fuzzer = Callable[[str], Callable[[random.Random], str]]

#: Name -> the module whose `fuzzer` it is.
FUZZERS = {
    "mysql_packets": "mysql_answers",
    "mysql_rows": "mysql_rows",
    "postgres_copy": "postgres_copy",
    "arrow": "arrow_files",
    "parquet": "parquet_files",
    "singer": "singer_lines",
    "numbers": "json_numbers",
    "yaml": "yaml_files",
}
#: What a damaged length may make a library ask for is refused by the system, not by the machine's other processes.
MEMORY_BYTES = 6 << 30
#: Bytes at the edges of something: lengths, signs, markers.
ODD = (0, 1, 0x7F, 0x80, 0xFA, 0xFB, 0xFC, 0xFD, 0xFE, 0xFF)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with something wrong: some of them, lengths, a part twice, a part or the end missing."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        if not made:
            break
        at, kind = chance.randrange(len(made)), chance.randrange(6)
        if kind <= 1:
            made[at] = chance.choice((*ODD, chance.randrange(256)))
        elif kind == 2:
            number = chance.choice((0, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, chance.getrandbits(64)))
            made[at : at + 8] = number.to_bytes(8, chance.choice(("little", "big")))
        elif kind == 3:
            made[at:at] = made[at : at + chance.randrange(1, 64)]
        elif kind == 4:
            del made[at : at + chance.randrange(1, 64)]
        else:
            made = made[:at] if chance.random() < 0.3 else made
    return bytes(made)


def touch(batch: pa.RecordBatch | pa.Table) -> None:
    """Look at every value, so that one which lies elsewhere is found out."""
    for column in batch.columns:
        with suppress(ValueError, OverflowError, pa.ArrowException):  # times and texts that Python has not
            column.to_pylist()


def main(name: str, seed: str, seconds: str, prepared: str = "") -> None:
    faulthandler.enable()
    logging.disable(logging.CRITICAL)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    made: Any = importlib.import_module(f"tests.fuzz.{FUZZERS[name]}")
    once = made.fuzzer(prepared)
    found: Counter[str] = Counter()
    end = time.monotonic() + float(seconds)
    number = int(seed)
    while not found or time.monotonic() < end:
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        found[once(random.Random(number))] += 1
        number += 1
    sys.stdout.write(f"{sum(found.values())} tries: {dict(found.most_common())}\n")


def read_file(path: str) -> bytes:
    return Path(path).read_bytes()


if __name__ == "__main__":
    main(*sys.argv[1:])
