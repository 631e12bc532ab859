"""Which program a connector is, and its environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import ConnectorConfigError
from ..programs.environments import installed, package_name
from ..programs.process import environment
from ..settings import resolve_path
from .settings import UNSAFE_CODE, AirbyteSettings

#: Airbyte's CDK for all manifests.
CDK = "airbyte-cdk==7.39.1"
READS_MANIFESTS = "source-declarative-manifest"


def name_of_connector(settings: AirbyteSettings) -> str:
    """Return a name for messages and the ledger: `stripe` of `sources/stripe.yaml` or `stripe/manifest.yaml`."""
    if settings.package:
        return package_name(settings.package).removeprefix("airbyte-")
    if not settings.manifest:
        return Path(settings.executable).name
    path = Path(settings.manifest.partition("?")[0])
    return path.parent.name if path.stem == "manifest" and path.parent.name else path.stem


def program_of(settings: AirbyteSettings, folder: Path) -> Path:
    """Return the program of a connector; install it if it is missing.

    Raises:
        ConnectorConfigError: there is no such program, or it cannot be installed.
        RetriableError: the installation takes too long.
    """
    if settings.executable:
        found = shutil.which(settings.executable) if "/" not in settings.executable else None
        path = Path(found) if found else resolve_path(settings.executable, folder)
        if not path.is_file() or not os.access(path, os.X_OK):
            raise ConnectorConfigError(
                f"config of connector 'airbyte': executable: no program {path}", connector="airbyte", key="executable"
            )
        return path
    is_manifest = bool(settings.manifest)
    return installed(
        CDK if is_manifest else settings.package,
        program=READS_MANIFESTS if is_manifest else package_name(settings.package).removeprefix("airbyte-"),
        python=settings.python,
        folder=folder,
        timeout_s=settings.install_timeout_s,
        env=settings.env,
        connector="airbyte",
        key="python" if is_manifest else "package",
    )


def command_of(settings: AirbyteSettings, program: Path) -> list[str]:
    """Return how to start a connector. Only an installed one is known to be a program of Python."""
    if settings.executable:
        return [str(program)]
    return [str(program.with_name("python")), str(Path(__file__).with_name("launcher.py")), str(program)]


def environment_of(settings: AirbyteSettings, program: str) -> dict[str, str]:
    """Return the connector's variables; Python of a manifest runs by `allow_code` alone."""
    return environment(settings.env, program) | ({UNSAFE_CODE: "true"} if settings.allow_code else {})
