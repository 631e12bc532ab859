"""`syncblocks connectors`: what each connector takes, needs and promises."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .completion import complete_connectors
from .console import Console
from .options import common

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

#: Widest text; longer lines are hard to read.
_MAX_WIDTH = 100


@click.command("connectors", short_help="Show the settings, package and capabilities of a connector.")
@common
@click.argument("name", required=False, metavar="[NAME]", shell_complete=complete_connectors)
def connectors_command(console: Console, name: str | None) -> int:
    """List the connectors, or show one: its settings, the package that it needs, and its capabilities.

    A source or a destination that another package has registered is among them.
    """
    if name is None:
        _list(console)
    else:
        _show(console, document(name))
    return 0


def _list(console: Console) -> None:
    from syncblocks.connectors.registry import names

    found = [
        {"name": name, "roles": _roles(name), **_needs(name)}
        for name in sorted({*names("source"), *names("destination")})
    ]
    if console.is_json:
        console.emit({"type": "connectors", "connectors": found})
        return
    console.table(
        ["connector", "reads and writes", "needs", ""],
        [
            [entry["name"], " and ".join(entry["roles"]), _package(entry), "not installed" if entry["missing"] else ""]
            for entry in found
        ],
    )


def document(name: str) -> dict[str, Any]:
    """Return what is known of a connector, as JSON.

    Raises:
        ConfigError: a system of that name is reached by another connector.
        ConnectorConfigError: there is no such connector.
    """
    from syncblocks.connectors.capabilities import capabilities_of_class
    from syncblocks.connectors.registry import connector_class, settings_model

    from ..config.other_systems import way_to
    from ..errors import ConfigError

    roles = _roles(name)
    if not roles and (way := way_to(name, "source")):
        raise ConfigError(f"{name!r} has no connector of its own: {way}")
    roles = roles or ["source"]  # a name that is unknown raises for any role
    return {"type": "connector", "name": name, "needs": _needs(name)} | {
        role: {
            "settings": _settings(settings_model(name, role)),
            "abilities": capabilities_of_class(connector_class(name, role)),
        }
        for role in roles
    }


def _roles(name: str) -> list[str]:
    from syncblocks.connectors.file_classes import class_of_file, is_of_file, lacks
    from syncblocks.connectors.registry import names

    if is_of_file(name):
        found = class_of_file(name, Path.cwd())
        return [role for role in ("source", "destination") if not lacks(found, role)]
    return [role for role in ("source", "destination") if name in names(role)]


def _needs(name: str) -> dict[str, Any]:
    from syncblocks.connectors.registry import EXTRAS
    from syncblocks.connectors.settings import is_installed

    extra, modules = EXTRAS.get(name, (None, ()))
    return {
        "extra": extra,
        "modules": list(modules),
        "missing": [module for module in modules if not is_installed(module)],
    }


def _package(needs: dict[str, Any]) -> str:
    return f"syncblocks[{needs['extra']}]" if needs["extra"] else ""


def _settings(model: type[BaseModel] | None) -> dict[str, Any] | None:
    """Return the settings by their keys; None: the connector states none."""
    if model is None:
        return None
    return {field.alias or key: _setting(field) for key, field in model.model_fields.items()}


def _setting(field: FieldInfo) -> dict[str, Any]:
    is_required = field.is_required()
    default = None if is_required else field.get_default(call_default_factory=True, validated_data={})
    return {"required": is_required, "default": default, "description": field.description}


def _show(console: Console, found: dict[str, Any]) -> None:
    if console.is_json:
        console.emit(found)
        return
    needs = found["needs"]
    formatter = click.HelpFormatter(width=min(shutil.get_terminal_size().columns, _MAX_WIDTH))
    if needs["extra"]:
        with formatter.section("Needs"):
            formatter.write_text(f"pip install '{_package(needs)}' ({', '.join(needs['modules'])})")
            if needs["missing"]:
                formatter.write_text(f"not installed: {', '.join(needs['missing'])}")
    else:
        formatter.write_text("Needs no extra of syncblocks.")
    roles: list[str] = [role for role in ("source", "destination") if role in found]
    settings: dict[str, Any] = {role: found[role]["settings"] for role in roles}
    if len(roles) == 2 and settings["source"] == settings["destination"]:
        settings = {"source and destination": settings["source"]}
    for role, taken in settings.items():
        _write_settings(formatter, role, taken)
    for role in roles:
        if found[role]["abilities"]:
            with formatter.section(f"Capabilities as {role}"):
                formatter.write_dl(list(found[role]["abilities"].items()))
    console.echo_lines(formatter.getvalue().rstrip("\n"))


def _write_settings(formatter: click.HelpFormatter, role: str, settings: dict[str, Any] | None) -> None:
    with formatter.section(f"Settings as {role}"):
        if settings:
            formatter.write_dl([(key, _described(setting)) for key, setting in settings.items()])
        else:
            formatter.write_text("none" if settings is not None else "the connector does not declare them")


def _described(setting: dict[str, Any]) -> str:
    import json

    if setting["required"]:
        tail = " [required]"
    elif setting["default"] in (None, "", [], {}, ()):
        tail = ""
    else:
        tail = f" [default: {json.dumps(setting['default'], default=str)}]"
    return f"{setting['description'] or ''}{tail}"
