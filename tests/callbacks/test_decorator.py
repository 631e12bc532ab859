from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from syncblocks import callbacks
from syncblocks.callbacks.errors import CallbackLoadError
from syncblocks.callbacks.loader import CallbackFile, load_file


def load(tmp_path: Path, text: str) -> CallbackFile:
    file = tmp_path / "alerts.py"
    file.write_text(dedent(text))
    return load_file(file)


def served(file: CallbackFile) -> list[tuple[str, set[str]]]:
    return [(function.name, set(function.statuses)) for function in file.functions]


def test_the_seed_example_loads_word_for_word_without_an_import(tmp_path: Path) -> None:
    file = load(
        tmp_path,
        """
        @callback('success')
        def hello_world(parent_block_data, **kwargs):
            # some code...
            pass


        @callback('failure')
        def alert_me(parent_block_data, **kwargs):
            # some code...
            pass

        @callback('cancelled')
        def notify_cancelled(parent_block_data, **kwargs):
            # some code...
            pass
        """,
    )
    assert served(file) == [
        ("hello_world", {"success"}),
        ("alert_me", {"failure"}),
        ("notify_cancelled", {"cancelled"}),
    ]
    assert all(function.binding.positional == "parent_block_data" for function in file.functions)


@pytest.mark.parametrize(
    ("mark", "statuses"),
    [
        ("@callback", {"success"}),
        ("@callback()", {"success"}),
        ("@callback('success')", {"success"}),
        ("@callback('failure')", {"failure"}),
        ("@callback('cancelled')", {"cancelled"}),
        ("@callback(status='failure')", {"failure"}),
        ("@callback('success', fetch_inputs=False)", {"success"}),
        ("@callback('failure')\n@callback('cancelled')", {"failure", "cancelled"}),
        ("@callback\n@callback('failure')\n@callback('cancelled')", {"success", "failure", "cancelled"}),
        ("@callback\n@callback('success')", {"success"}),
        ("@on_success", {"success"}),
        ("@on_failure", {"failure"}),
        ("@on_cancelled", {"cancelled"}),
        ("@on_failure\n@on_cancelled", {"failure", "cancelled"}),
    ],
)
def test_a_mark_serves_its_statuses(tmp_path: Path, mark: str, statuses: set[str]) -> None:
    file = load(tmp_path, f"{mark}\ndef tell(**kwargs): ...\n")
    assert served(file) == [("tell", statuses)]


def test_functions_come_in_definition_order_and_legacy_ones_first(tmp_path: Path) -> None:
    file = load(
        tmp_path,
        """
        @callback
        def first(**kwargs): ...
        @on_success
        def old_one(**kwargs): ...
        @callback
        def second(**kwargs): ...
        @on_failure
        def old_two(**kwargs): ...
        """,
    )
    assert [function.name for function in file.functions] == ["old_one", "old_two", "first", "second"]


def test_a_second_function_of_the_same_name_is_not_lost(tmp_path: Path) -> None:
    file = load(
        tmp_path,
        """
        @callback('success')
        def tell(**kwargs): ...
        @callback('failure')
        def tell(**kwargs): ...
        """,
    )
    assert served(file) == [("tell", {"success"}), ("tell#2", {"failure"})]


def test_an_unknown_status_names_the_allowed_ones_the_nearest_and_the_line(tmp_path: Path) -> None:
    with pytest.raises(CallbackLoadError) as caught:
        load(tmp_path, "\n\n@callback('sucess')\ndef tell(**kwargs): ...\n")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'alerts.py'}:3: ")
    assert "'sucess'" in message
    assert "did you mean 'success'? Allowed: success, failure, cancelled" in message


def test_a_misspelt_decorator_names_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(CallbackLoadError, match="name 'calback' is not defined; did you mean 'callback'"):
        load(tmp_path, "@calback('success')\ndef tell(**kwargs): ...\n")
    with pytest.raises(CallbackLoadError, match=r"name 'requests' is not defined$"):
        load(tmp_path, "requests.get('x')\n")
    (tmp_path / "shared_marks.py").write_text("@callback\ndef tell(): ...\n")
    with pytest.raises(CallbackLoadError, match="imported needs `from syncblocks import callback`"):
        load(tmp_path, "import shared_marks\n")


def test_a_class_is_no_function_but_an_object_of_one_is(tmp_path: Path) -> None:
    with pytest.raises(CallbackLoadError, match=":1: 'Teller' is a class"):
        load(tmp_path, "@callback('success')\nclass Teller:\n    def __call__(self, stream): ...\n")
    text = "class Teller:\n    def __call__(self, stream): ...\n\ntell = callback('success')(Teller())\n"
    assert [statuses for _, statuses in served(load(tmp_path, text))] == [{"success"}]


@pytest.mark.parametrize("mark", ["@callback('failure', 'cancelled')", "@callback(['failure', 'cancelled'])"])
def test_several_statuses_in_one_mark_are_an_error_that_says_how_to_write_them(tmp_path: Path, mark: str) -> None:
    with pytest.raises(
        CallbackLoadError, match=r"takes one status: write `@callback\('failure'\)` and `@callback\('canc"
    ):
        load(tmp_path, f"{mark}\ndef tell(**kwargs): ...\n")


@pytest.mark.parametrize(
    "mark", ["@callback(None)", "@callback(7)", "@callback('success', fetch_inputs='no')", "@callback(on='success')"]
)
def test_a_mark_with_a_wrong_argument_is_an_error_at_load(tmp_path: Path, mark: str) -> None:
    with pytest.raises(CallbackLoadError, match="allowed"):
        load(tmp_path, f"{mark}\ndef tell(**kwargs): ...\n")


def test_an_imported_mark_is_the_same_as_the_one_in_the_namespace(tmp_path: Path) -> None:
    file = load(
        tmp_path,
        """
        given = callback
        from syncblocks import callback, on_failure, transformer
        assert given is callback

        @callback('failure')
        def tell(**kwargs): ...

        @transformer
        def clean(df, **kwargs): return df
        """,
    )
    assert served(file) == [("tell", {"failure"})]
    assert [item.name for item in file.transformers] == ["clean"]


def test_outside_of_the_loader_a_mark_leaves_a_function_as_it_is() -> None:
    def tell() -> str:
        return "told"

    marked = callbacks.callback("failure")(tell)
    assert marked is tell
    assert callbacks.on_success(tell) is tell
    assert callbacks.transformer(tell) is tell
    assert not vars(tell)


def test_a_partial_and_a_lambda_can_be_marked(tmp_path: Path) -> None:
    file = load(
        tmp_path,
        """
        from functools import partial
        def post(channel, **kwargs): ...
        callback('failure')(partial(post, '#alerts'))
        callback('failure')(lambda **kwargs: None)
        """,
    )
    assert served(file) == [("post", {"failure"}), ("<lambda>", {"failure"})]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("class Alerts:\n    @callback\n    def tell(self, **kwargs): ...\n", "method"),
        ("@callback\ndef tell(**kwargs):\n    yield 1\n", "yield"),
        (
            "class Tell:\n    def __call__(self, **kwargs):\n        yield 1\ncallback(Tell())\n",
            "'Tell' contains `yield`",
        ),
        ("from functools import partial\ndef tell(x, **kwargs):\n    yield x\ncallback(partial(tell, 1))\n", "yield"),
        ("callback('failure')('tell')\n", "a decorator marks a function"),
    ],
)
def test_what_could_not_work_is_an_error_at_load(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(CallbackLoadError, match=reason):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ("@callback('success', fetch_inputs=False)\n@callback('failure')", False),
        ("@callback('success')\n@callback('failure', fetch_inputs=False)", None),
        ("@callback('failure', fetch_inputs=False)", None),
        ("@callback('success', fetch_inputs=True)", True),
    ],
)
def test_fetch_inputs_counts_where_there_is_data(tmp_path: Path, marks: str, said: bool | None) -> None:
    (function,) = load(tmp_path, f"{marks}\ndef tell(df, **kwargs): ...\n").functions
    assert function.fetch_inputs is said
