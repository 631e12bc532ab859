from __future__ import annotations

import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from syncblocks.callbacks.errors import CallbackLoadError
from syncblocks.callbacks.loader import load_file


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


ALERT = "@callback('failure')\ndef tell(**kwargs): ...\n"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CallbackLoadError, match=r"alerts\.py: cannot be read: No such file"):
        load_file(tmp_path / "alerts.py")


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("x = 1\ndef tell(:\n", 2, "is not valid Python"),
        ("x = 1\n\n1 / 0\n", 3, "ZeroDivisionError"),
        ("def f():\n    1 / 0\n\nf()\n", 2, "ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit"),
        ("raise BaseException\n", 1, "BaseException"),
        ("class E(BaseException):\n    def __str__(self): raise self\n\nraise E\n", 4, "its message raised E"),
        ("import os\nos._exit(0)\n", 2, r"calls os\._exit\(0\)"),
        ("from os import _exit\ntry: _exit(5)\nexcept Exception: ...\n", 2, r"calls os\._exit\(5\)"),
        ("import no_such_module_anywhere\n", 1, "no_such_module_anywhere"),
        ("import json\njson.loads('{')\n", 2, "JSONDecodeError"),
        ("x = 1\n", None, "marks no function"),
        ("", None, "marks no function"),
    ],
)
def test_a_file_that_does_not_load_tells_line_and_reason(
    tmp_path: Path, text: str, line: int | None, reason: str
) -> None:
    file = write(tmp_path / "alerts.py", text)
    with pytest.raises(CallbackLoadError, match=reason) as caught:
        load_file(file)
    assert (caught.value.path, caught.value.line) == (file, line)


def test_a_process_that_a_file_forks_may_end_itself(tmp_path: Path) -> None:
    text = "import os\nif not os.fork(): os._exit(7)\nassert os.waitstatus_to_exitcode(os.wait()[1]) == 7\n"
    ends = os._exit
    assert load_file(write(tmp_path / "alerts.py", text + ALERT)).functions
    assert os._exit is ends


def test_a_file_may_be_named_like_a_module_of_the_standard_library(tmp_path: Path) -> None:
    import json

    write(tmp_path / "callbacks" / "logging.py", "raise RuntimeError('shadowed')")
    file = write(tmp_path / "callbacks" / "json.py", f"import logging, json\njson.dumps({{}})\n{ALERT}")
    assert [function.name for function in load_file(file).functions] == ["tell"]
    assert sys.modules["json"] is json


def test_a_folder_named_callbacks_does_not_hide_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "callbacks" / "__init__.py", "raise RuntimeError('shadowed')")
    file = write(tmp_path / "callbacks" / "callbacks.py", f"from syncblocks import callback\n{ALERT}")
    assert load_file(file).functions


def test_helpers_beside_the_file_can_be_imported_and_stay_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write(tmp_path / folder / "helper_of_alerts.py", f"NAME = {folder!r}\n")
        file = write(
            tmp_path / folder / "alerts.py",
            f"import helper_of_alerts\nassert helper_of_alerts.NAME == {folder!r}\n{ALERT}",
        )
        before = list(sys.path)
        load_file(file)
        assert sys.path == before
        assert "helper_of_alerts" not in sys.modules


def test_an_imported_marked_function_does_not_fire_a_second_time(tmp_path: Path) -> None:
    write(tmp_path / "common.py", f"from syncblocks import callback\n{ALERT}")
    file = write(tmp_path / "alerts.py", "from common import tell\n@callback\ndef mine(**kwargs): ...\n")
    assert [function.name for function in load_file(file).functions] == ["mine"]


def test_dataclasses_and_their_string_annotations_work_in_a_users_file(tmp_path: Path) -> None:
    text = """
    from __future__ import annotations
    from dataclasses import dataclass, KW_ONLY
    from typing import get_type_hints

    @dataclass
    class Message:
        _: KW_ONLY
        text: str

    assert get_type_hints(Message)['text'] is str
    assert __name__ != '__main__'
    assert __file__.endswith('alerts.py')
    """
    assert load_file(write(tmp_path / "alerts.py", dedent(text) + ALERT)).functions


def test_an_edited_file_is_loaded_anew(tmp_path: Path) -> None:
    file = write(tmp_path / "alerts.py", ALERT)
    load_file(file)
    write(file, ALERT.replace("tell", "shout"))
    assert [function.name for function in load_file(file).functions] == ["shout"]


class TestTransformers:
    def test_one_is_found_without_an_import(self, tmp_path: Path) -> None:
        file = write(tmp_path / "clean.py", "@transformer\ndef clean(df, stream, region, **kwargs): return df\n")
        (found,) = load_file(file, variables=["region"], expects="transformer").transformers
        args, kwargs = found.binding.arguments({"stream": "users", "region": "eu", "ds": "2023-04-26"}, "frame")
        assert args == ("frame",)
        assert kwargs == {"stream": "users", "region": "eu", "ds": "2023-04-26", "__input": {}}

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (ALERT, "exactly one"),
            ("@transformer\ndef a(df): ...\n@transformer\ndef b(df): ...\n", "a, b"),
            ("@transformer\ndef a(**kwargs): ...\n", "DataFrame"),
            ("@transformer\ndef a(df, block_run): ...\n", "block_run"),
            ("@transformer\nasync def a(df): return df\n", "'a' is `async def`"),
            ("class A:\n    async def __call__(self, df): return df\ntransformer(A())\n", "'A' is `async def`"),
        ],
    )
    def test_a_file_that_cannot_serve_is_refused(self, tmp_path: Path, text: str, reason: str) -> None:
        with pytest.raises(CallbackLoadError, match=reason):
            load_file(write(tmp_path / "clean.py", text), expects="transformer")

    def test_columns_to_rename_may_stand_in_the_decorator(self, tmp_path: Path) -> None:
        text = "@transformer(rename_columns={'id': 'user_id'})\ndef clean(df): return df\n"
        (found,) = load_file(write(tmp_path / "clean.py", text), expects="transformer").transformers
        assert (found.name, found.rename_columns) == ("clean", {"id": "user_id"})

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            ("rename={'a': 'b'}", r"no argument 'rename'; allowed: rename_columns"),
            ("rename_columns=['a']", "must be a dict of texts"),
            ("rename_columns={'a': 1}", "must be a dict of texts"),
            ("rename_columns={'a': 'x', 'b': 'x'}", "two columns the same name"),
            ("{'a': 'x'}", "a decorator marks a function"),
        ],
    )
    def test_any_other_argument_of_the_decorator_is_an_error(self, tmp_path: Path, arguments: str, reason: str) -> None:
        file = write(tmp_path / "clean.py", f"x = 1\n@transformer({arguments})\ndef clean(df): return df\n")
        with pytest.raises(CallbackLoadError, match=reason) as caught:
            load_file(file)
        assert caught.value.line == 2

    def test_a_callback_file_must_mark_a_callback(self, tmp_path: Path) -> None:
        file = write(tmp_path / "clean.py", "@transformer\ndef clean(df): return df\n")
        with pytest.raises(CallbackLoadError, match="@callback"):
            load_file(file, expects="callback")


MAGE = """
if 'transformer' not in globals():
    from mage_ai.data_preparation.decorators import transformer
if 'test' not in globals():
    from mage_ai.data_preparation.decorators import test
from mage_ai.data_preparation.decorators import callback, data_loader

@transformer
def change(data, *args, **kwargs):
    return data

@callback('success')
def tell(data, **kwargs): ...

@data_loader(limit=3)
def load(): ...

@test
def is_there(output, *args):
    assert output is not None
"""


def test_a_file_of_mage_loads_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mage.py"
    path.write_text(MAGE)
    loaded = load_file(path)
    assert [each.name for each in loaded.functions] == ["tell"]
    assert [each.name for each in loaded.transformers] == ["change"]
    assert not [name for name in sys.modules if name.startswith("mage_ai")]
    path.write_text(MAGE + "from mage_ai.io.file import FileIO\n")
    with pytest.raises(CallbackLoadError, match=r"mage_ai\.io"):
        load_file(path)
