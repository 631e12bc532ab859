"""Read a JSON file that another tool has written. Messages show no text of it: a value may be a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ConfigError


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        ConfigError: it cannot be read, or is no JSON; says where.
    """
    shown = str(path)
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            raise ConfigError("is not a regular file", path=shown)
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=shown) from None
    except ValueError as error:
        raise ConfigError(f"is no JSON: {error}", path=shown) from None
    except RecursionError:
        raise ConfigError("is no JSON that can be read: it is nested too deeply", path=shown) from None


__all__ = ["read_json"]
