"""Find the secrets of a program's config by the names of its keys."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_SECRET_KEY = re.compile(r"pass|secret|token|key|credential|auth|private|dsn|url|conn", re.IGNORECASE)
#: Shorter values are not masked: they stand in other words as well.
SECRET_CHARACTERS = 6


def secrets_in(config: Any, *, is_secret: bool = False) -> Iterator[str]:
    """Yield the texts of a config whose keys look like secrets."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from secrets_in(value, is_secret=is_secret or _SECRET_KEY.search(str(key)) is not None)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from secrets_in(value, is_secret=is_secret)
    elif is_secret and isinstance(config, str) and len(config) >= SECRET_CHARACTERS:
        yield config
