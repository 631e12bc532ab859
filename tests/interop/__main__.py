"""`python -m tests.interop [WORD ...]`: run the cases whose name holds a word, and print what happened to each."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from syncblocks.connectors.programs.environments import FOLDER_VARIABLE

from .installs import install_case, pythons
from .lakes import lake_cases
from .orchestrators import orchestrator_cases
from .plugins import PLUGINS, Plugin
from .stage import Act, Failed, Stage
from .storage import object_store_cases, sftp_case


def main(words: list[str]) -> int:
    """Return 1 if a case did what nobody expects, or if one that is known not to work does."""
    cases = [each for each in _cases() if not words or any(word in each[0] for word in words)]
    with tempfile.TemporaryDirectory() as made:
        os.environ.setdefault(FOLDER_VARIABLE, str(Path(made) / "plugins"))
        found = [
            _happened(name, act, known, Path(made) / f"case{number}") for number, (name, act, known) in enumerate(cases)
        ]
    bad = [name for name, is_expected in found if not is_expected]
    for version, program in pythons().items():
        if program is None:
            print(f"{'python ' + version:42} untested: not on this machine")
    print(f"{len(found) - len(bad)} of {len(found)} as expected" + (f"; not: {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


def _cases() -> list[tuple[str, Act, str]]:
    cases = [(plugin.pip, _act(plugin), plugin.known) for plugin in PLUGINS]
    cases += [(name, act, "") for name, act in object_store_cases()]
    cases += [(name, act, "") for name, act in lake_cases()]
    cases.append(("sftp csv append", sftp_case, ""))
    cases += [(name, act, "") for name, act in orchestrator_cases()]
    for version, program in pythons().items():
        if program is not None:
            cases += [(f"python {version} {kind}", install_case(program, kind), "") for kind in ("wheel", "sdist")]
    return cases


def _act(plugin: Plugin) -> Act:
    return lambda stage: plugin.run(stage, plugin.pip)


def _happened(name: str, act: Act, known: str, folder: Path) -> tuple[str, bool]:
    """Run one case and print a line; returns whether it went as expected."""
    folder.mkdir()
    begun = time.monotonic()
    try:
        told, is_right = act(Stage(folder=folder)), True
    except Failed as error:
        told, is_right = " ".join(str(error).split()), False
    except Exception:
        told, is_right = " ".join(traceback.format_exc().split())[-500:], False
    word = "ok" if is_right else "known" if known else "FAILED"
    text = f"{known} ({told[:120]})" if known and not is_right else told
    print(f"{name:42} {word:7} {time.monotonic() - begun:5.0f} s  {text}", flush=True)
    return name, is_right is not bool(known)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
