"""Projects of strangers: nothing outside of them is read, nothing outside of the folder is written, no text shown."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from syncblocks.sync.errors import ConfigError
from syncblocks.sync.importers.mage import read_mage
from syncblocks.sync.importers.meltano import read_meltano
from tests.conftest import RunCLI
from tests.sync.importers.test_mage import write_project
from tests.sync.importers.test_meltano import PROJECT

MARK = "hush-canary"
#: 1 kB that would be gigabytes of values, and 100,000 brackets.
BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
)
BROKEN = {
    f"password: {MARK}: x\n": "needs quotes",
    f"a:\n  b: 1\n password: {MARK}\n": "indent",
    f"password: *{MARK}\n": "refers to nothing",
    f"password: !{MARK} x\n": "a tag",
    f'password: "{MARK}\n': "not closed",
    f"password: {{{MARK}\n": "not closed",
    BOMB: "50,000 values",
    "a: " + "[" * 100_000: "depth",
}


@pytest.fixture
def mage(tmp_path: Path) -> Path:
    return write_project(tmp_path / "night", "db.example", 5432)


def callback_at(mage: Path, place: str) -> None:
    path = mage / "pipelines/night_shop/metadata.yaml"
    path.write_text(
        path.read_text().replace(
            "{uuid: tell, type: callback, language: python}",
            f"{{uuid: tell, type: callback, configuration: {{file_source: {{path: '{place}'}}}}}}",
        )
    )


@pytest.mark.parametrize(
    "place", ["link/../../../callbacks/tell.py", "../night/callbacks/tell.py", "{}/callbacks/tell.py"]
)
def test_a_callback_is_copied_to_where_it_lies_in_the_project(mage: Path, run_cli: RunCLI, place: str) -> None:
    (mage / "a/b/c/d").mkdir(parents=True)
    (mage / "link").symlink_to("a/b/c")
    callback_at(mage, place.format(mage))
    new = mage.parent / "deep" / "er" / "new"
    done = run_cli(["init", "--from-mage", str(mage), str(new), "--json"], mage.parent)
    assert done.returncode == 0, done.stdout
    assert [path for path in mage.parent.rglob("tell.py") if mage not in path.parents] == [new / "callbacks/tell.py"]
    assert "file: callbacks/tell.py" in (new / "night_shop.yaml").read_text()


@pytest.mark.parametrize(
    "place", ["keys/id", "callbacks/away.py", "../other/mine.py", "/etc/hostname", "pipelines", "p" * 5000]
)
def test_what_is_no_python_file_of_the_project_is_left_out(mage: Path, place: str) -> None:
    (mage.parent / "other").mkdir()
    (mage.parent / "other" / "mine.py").write_text(MARK)
    (mage / "callbacks" / "away.py").symlink_to(mage.parent / "other" / "mine.py")
    (mage / "keys").mkdir()
    (mage / "keys" / "id").write_text(MARK)
    callback_at(mage, place)
    (made,), _ = read_mage(mage)
    assert MARK not in "".join(copy.path.read_text() for copy in made.copies)
    assert [note for note in made.notes if note.startswith("tell: ") and "left out" in note]


@pytest.mark.parametrize("kind", ["mage", "meltano"])
@pytest.mark.parametrize("to", ["elsewhere", "within"])
def test_links_in_the_folder_lead_nothing_out_of_it(mage: Path, run_cli: RunCLI, kind: str, to: str) -> None:
    new = mage.parent / "new"
    target = {"elsewhere": mage.parent / "home", "within": new / "home"}[to]
    for folder in (new, target):
        folder.mkdir()
    link, left = ("callbacks", mage) if kind == "mage" else ("archive.yaml", mage.parent / "meltano.yml")
    (new / link).symlink_to(target if kind == "mage" else target / "gone")
    (mage.parent / "meltano.yml").write_text(PROJECT)
    done = run_cli(["init", f"--from-{kind}", str(left), str(new)], mage.parent)
    if (kind, to) == ("mage", "within"):
        assert done.returncode == 0, done.stderr
        assert (target / "tell.py").is_file()
    else:
        assert (done.returncode, list(target.iterdir())) == (2, []), done.stderr
        assert "nothing was written" in done.stderr
        assert [path.name for path in new.iterdir() if not path.is_symlink()] == (["home"] if to == "within" else [])


def test_a_file_where_a_folder_has_to_be_is_named(mage: Path, run_cli: RunCLI) -> None:
    new = mage.parent / "new"
    new.mkdir()
    (new / "callbacks").write_text("")
    done = run_cli(["init", "--from-mage", str(mage), str(new)], mage.parent)
    assert done.returncode == 2
    assert "callbacks is no folder, nothing was written" in done.stderr
    assert [path.name for path in new.iterdir()] == ["callbacks"]


def test_files_outside_of_a_meltano_project_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "in/plugins/extractors").mkdir(parents=True)
    other, project = tmp_path / "other.yml", tmp_path / "in" / "meltano.yml"
    other.write_text(f"plugins: {{extractors: [{{name: tap-jsonl, config: {{password: {MARK}}}}}]}}\n")
    (tmp_path / "in" / "link.yml").symlink_to(other)
    (tmp_path / "lock").write_text(json.dumps({"pip_url": MARK}))
    (tmp_path / "in/plugins/extractors/tap-jsonl--someone.lock").symlink_to(tmp_path / "lock")
    project.write_text(PROJECT + f"include_paths: ['../*.yml', link.yml, '{other}']\n")
    made = read_meltano(project)
    assert MARK not in "".join(each.text for each in made)
    assert len([note for note in made[0].notes if "is outside of the project" in note]) == 3
    project.write_text(PROJECT + "include_paths: ['']\n")
    with pytest.raises(ConfigError, match="is no pattern of files"):
        read_meltano(project)


def test_each_pair_of_a_meltano_project_gets_a_file_of_its_own(tmp_path: Path) -> None:
    project = tmp_path / "meltano.yml"
    plugins = "plugins: {extractors: [{name: tap-a}, {name: tap_a}], loaders: [{name: target-b}, {name: target-c}]}\n"
    project.write_text(plugins + "jobs: [{name: all, tasks: [tap-a target-b, tap-a target-c, tap_a target-b]}]\n")
    with pytest.raises(ConfigError, match="both be written into all_tap_a_target_b"):
        read_meltano(project)
    project.write_text(plugins + "jobs: [{name: all, tasks: [tap-a target-b, tap-a target-c]}]\n")
    assert [made.file for made in read_meltano(project)] == ["all_tap_a_target_b.yaml", "all_tap_a_target_c.yaml"]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_told_by_place_and_problem_alone(mage: Path, text: str) -> None:
    meltano = mage.parent / "meltano.yml"
    for path in (meltano, mage / "data_loaders/read_shop.yaml"):
        before = path.read_text() if path.exists() else ""
        path.write_text(text)
        with pytest.raises(ConfigError, match=BROKEN[text]) as wrong:
            read_meltano(path) if path == meltano else read_mage(mage)
        assert re.search(rf"{path.name}:\d+: ", str(wrong.value))
        assert MARK not in str(wrong.value)
        path.write_text(before)


@pytest.mark.parametrize("text", [f'{{"password": "{MARK}" x', "[" * 100_000, f'{{"a": "{MARK}\\q"}}'])
def test_a_broken_json_file_is_told_by_place_and_problem_alone(mage: Path, text: str) -> None:
    (mage / "pipelines/night_shop/data_integration_catalog.json").write_text(text)
    with pytest.raises(ConfigError, match=r"catalog\.json: is no JSON") as wrong:
        read_mage(mage)
    assert MARK not in str(wrong.value)
    states = mage / "state/night/pipelines/night_shop/postgresql/visits"
    next(states.iterdir()).write_text(text)


def test_values_of_other_tools_files_are_those_of_yaml_1_1(mage: Path) -> None:
    path = mage / "pipelines/night_shop/metadata.yaml"
    values = "{a: yes, b: 0o7, c: 1_000, d: 2024-01-01, e: 2024-02-31, f: 017, g: .inf, on: 1:30}"
    path.write_text(path.read_text().replace("{region: eu, api_key: k3y}", values))
    (made,), _ = read_mage(mage)
    assert "  a: true\n  b: 0o7\n  c: 1000\n  d: '2024-01-01'\n" in made.text
    assert "  e: '2024-02-31'\n" in made.text or "  e: 2024-02-31\n" in made.text
    assert "  f: 15\n  g: .inf\n  'on': 90\n" in made.text
