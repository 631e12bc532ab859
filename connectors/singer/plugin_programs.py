"""Which program a tap or target is: one that is there already, or the one that a requirement brings."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConnectorConfigError
from ..programs.environments import installed, package_name
from ..programs.secrets import SECRET_CHARACTERS, secrets_in
from ..settings import resolve_path
from .settings import PluginSettings


def program_name(pip: str) -> str:
    """Return the probable program of a requirement: its name without version and vendor."""
    name = package_name(pip)
    place = re.search(r"(?:^|-)((?:tap|target)-.+)$", name)
    return place[1] if place else name


def program_of(settings: PluginSettings, requirement: str, name: str, folder: Path) -> Path:
    """Return the program of a tap or target: one that is there already, or else the one that a requirement brings.

    Args:
        settings: of the plugin.
        requirement: what to install, as for pip; empty: `executable` names the program.
        name: of the program that the requirement brings.
        folder: the pipeline file's folder.

    Raises:
        ConnectorConfigError: there is no such program, or it cannot be installed.
        RetriableError: the installation takes too long.
    """
    if requirement:
        return installed(
            requirement,
            program=name,
            python=settings.python,
            folder=folder,
            timeout_s=settings.install_timeout_s,
            env=settings.env,
        )
    found = shutil.which(settings.executable) if "/" not in settings.executable else None
    path = Path(found) if found else resolve_path(settings.executable, folder)
    if not path.is_file() or not os.access(path, os.X_OK):
        raise ConnectorConfigError(
            f"config of connector 'singer': executable: no program {path}", connector="singer", key="executable"
        )
    return path


def secrets_of(settings: PluginSettings) -> Sequence[str]:
    """Return what is masked in a plugin's output: texts of its config that look like secrets, and all its variables."""
    own = [value for value in settings.env.values() if len(value) >= SECRET_CHARACTERS]
    return [*secrets_in(settings.config), *own]
