"""Where the run store is of a pipeline whose file says none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError
from ..secrets import url_passwords
from .head_keys import DEFAULT_STORE, STORE_VARIABLE
from .refusals import check_store
from .yaml_document import Loc


class StorePlace(NamedTuple):
    """Where the run store is."""

    url: str
    #: Secrets in it, which must be masked in each text.
    secret_values: frozenset[str]


def usual_store(folder: Path, environ: Mapping[str, str] | None = None) -> StorePlace:
    """Return the run store of a folder whose files say none: that of the environment, or the default one.

    Raises:
        ConfigError: the environment variable names no store.
    """
    said = (os.environ if environ is None else environ).get(STORE_VARIABLE, "").strip()

    def refuse(_loc: Loc, message: str, *, allowed: Iterable[str] = (), word: str | None = None) -> None:
        raise ConfigError(message, key=f"${STORE_VARIABLE}", allowed=tuple(allowed))

    return StorePlace(check_store(said or DEFAULT_STORE, folder, refuse), url_passwords(said))
