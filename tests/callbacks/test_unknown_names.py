from __future__ import annotations

from pathlib import Path

import pytest

from syncblocks.callbacks.kwargs import RESERVED
from syncblocks.callbacks.loader import load_file
from syncblocks.callbacks.unknown_names import unknown_names


def found(folder: Path, text: str, variables: frozenset[str] = frozenset()) -> list[tuple[int, str, str | None]]:
    path = folder / "alerts.py"
    path.write_text(text)
    (function,) = load_file(path, variables=variables).functions
    names = unknown_names(path, function, RESERVED | variables)
    return [(item.line, item.name, item.nearest) for item in names]


@pytest.mark.parametrize(
    "use",
    [
        "kwargs['strem']",
        "kwargs.get('strem')",
        "kwargs.pop('strem', None)",
        "'strem' in kwargs",
        "'strem' not in kwargs",
    ],
)
def test_a_literal_that_kwargs_is_asked_for_is_checked(tmp_path: Path, use: str) -> None:
    assert found(tmp_path, f"@callback\ndef tell(**kwargs):\n    return {use}\n") == [(3, "strem", "stream")]


def test_a_parameter_that_looks_like_a_keyword_argument_is_a_slip(tmp_path: Path) -> None:
    assert found(tmp_path, "@callback\ndef tell(strem): ...\n") == [(2, "strem", "stream")]
    assert found(tmp_path, "@callback\ndef tell(df, *, strem=None): ...\n") == [(2, "strem", "stream")]
    assert found(tmp_path, "@callback\ndef tell(df, threshold=5): ...\n") == []


@pytest.mark.parametrize("name", ["strem", "streams", "sttream", "indxe", "destination_tabel"])
def test_a_first_parameter_that_is_one_or_two_letters_off_is_a_slip(tmp_path: Path, name: str) -> None:
    ((line, shown, _),) = found(tmp_path, f"@callback\ndef tell({name}): ...\n")
    assert (line, shown) == (2, name)


@pytest.mark.parametrize(
    "name", ["parent_block_data", "data", "df", "dt", "row", "rows", "frame", "records", "x", "_", "result", "hrs"]
)
def test_a_first_parameter_has_any_other_name(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, f"@callback\ndef tell({name}, **kwargs): ...\n", frozenset({"date"})) == []


def test_another_word_for_a_keyword_argument_is_told_what_it_is_called(tmp_path: Path) -> None:
    text = "@callback\ndef tell(stream, status, err=None, **kwargs):\n    kwargs['run_id']\n"
    assert found(tmp_path, text) == [
        (2, "err", "__error"),
        (2, "status", "block_run.status"),
        (3, "run_id", "pipeline_run_id"),
    ]


@pytest.mark.parametrize(
    ("signature", "name", "nearest"),
    [
        ("stream, tablename", "tablename", "destination_table"),
        ("stream, table_name, **kwargs", "table_name", "destination_table"),
        ("stream, table", "table", "destination_table"),
        ("index, stream, lastblock", "lastblock", "is_last_block_run"),
        ("table_name, **kwargs", "table_name", "destination_table"),
    ],
)
def test_a_later_parameter_that_receives_the_data_is_reported_if_it_resembles_a_keyword_argument(
    tmp_path: Path, signature: str, name: str, nearest: str
) -> None:
    assert found(tmp_path, f"@callback\ndef tell({signature}): ...\n") == [(2, name, nearest)]


@pytest.mark.parametrize("name", ["df", "frame", "stream_rows", "table_data", "parent_output", "x", "batch", "*rest"])
def test_a_later_parameter_with_a_name_for_data_is_left_alone(tmp_path: Path, name: str) -> None:
    assert found(tmp_path, f"@callback\ndef tell(stream, {name}): ...\n") == []
    assert found(tmp_path, "@callback\ndef tell(table, **kwargs): ...\n") == []


def test_a_variable_with_the_name_of_the_datas_parameter_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "alerts.py"
    path.write_text("@callback\ndef tell(data, region, **kwargs): ...\n")
    (function,) = load_file(path, variables={"data", "region"}).functions
    (item,) = unknown_names(path, function, RESERVED | {"data", "region"})
    assert item.is_slip
    assert str(item) == (
        "line 2: parameter 'data' receives the parent's data, not the variable 'data'. Rename the parameter or the "
        "variable"
    )


def test_known_names_variables_and_other_dicts_are_left_alone(tmp_path: Path) -> None:
    text = (
        "@callback\ndef tell(frame, **kw):\n    kw['region'], kw['stream'], kw.get('__error')\n"
        "    kw['note'] = 1\n    other = {}\n    other.get('strem')\n"
    )
    assert found(tmp_path, text, frozenset({"region"})) == []


def test_an_async_and_a_stacked_function_are_read_too(tmp_path: Path) -> None:
    text = "@callback('failure')\n@callback('success')\nasync def tell(**kwargs):\n    return kwargs['indx']\n"
    assert found(tmp_path, text) == [(4, "indx", "index")]


def test_a_function_of_another_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "helper_of_names.py").write_text("def tell(**kwargs):\n    return kwargs['strem']\n")
    assert found(tmp_path, "from helper_of_names import tell\ncallback(tell)\n") == []
