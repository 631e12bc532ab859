"""What cannot be written is refused by name, before anything is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, Schema, TableFeatures, write_deltalake
from deltalake.schema import ArrayType, MapType, StructType

from syncblocks.connectors.delta.settings import DeltaSettings
from syncblocks.connectors.delta.storage import folder_name, table_name
from syncblocks.connectors.errors import ConnectorConfigError, FatalConnectorError
from syncblocks.connectors.settings import parse_settings
from syncblocks.connectors.stream import Checkpoint
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.delta.delta_loads import FINAL, ITEMS, destination_of, items, load_of, run
from tests.connectors.delta.delta_tables import read_table

RECORDS = pa.Table.from_batches([items((1, "a"))])


def made(folder: Path, **settings: Any) -> DeltaTable:
    uri = (folder / "items").as_uri()
    write_deltalake(uri, RECORDS, **settings)
    return DeltaTable(uri)


def refused(folder: Path) -> dict[str, str]:
    return {str(key): why for key, why in destination_of(folder).describe(["items"])["items"].refuses.items()}


@pytest.mark.parametrize(
    ("feature", "name"),
    [
        (TableFeatures.DeletionVectors, "deletionVectors"),
        (TableFeatures.RowTracking, "rowTracking"),
        (TableFeatures.V2Checkpoint, "v2Checkpoint"),
        (TableFeatures.DomainMetadata, "domainMetadata"),
    ],
    ids=str,
)
def test_features_that_the_library_lacks_are_refused_by_name(tmp_path: Path, feature: Any, name: str) -> None:
    made(tmp_path).alter.add_feature(feature, allow_protocol_versions_increase=True)
    found = refused(tmp_path)
    assert set(found) == {str(each) for each in WriteDisposition}
    assert f"uses {name}" in found["append"]


@pytest.mark.parametrize(
    ("configuration", "name"),
    [
        ({"delta.enableChangeDataFeed": "true"}, "changeDataFeed"),
        ({"delta.columnMapping.mode": "name"}, "columnMapping"),
    ],
    ids=str,
)
def test_properties_that_need_more_of_a_writer_are_refused(tmp_path: Path, configuration: Any, name: str) -> None:
    log = tmp_path / "items" / "_delta_log" / f"{0:020}.json"
    made(tmp_path)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "metaData" in line:
            line["metaData"]["configuration"] = configuration
            schema = json.loads(line["metaData"]["schemaString"])
            for number, field in enumerate(schema["fields"]):
                field["metadata"] = {
                    "delta.columnMapping.id": number,
                    "delta.columnMapping.physicalName": field["name"],
                }
            line["metaData"]["schemaString"] = json.dumps(schema)
        if "protocol" in line:
            line["protocol"] = {"minReaderVersion": 2, "minWriterVersion": 5}
    log.write_text("\n".join(map(json.dumps, lines)))
    assert f"uses {name}" in refused(tmp_path)["replace"]


def test_constraints_and_computed_columns_are_refused(tmp_path: Path) -> None:
    made(tmp_path).alter.add_constraint({"positive": "id > 0"})
    assert "uses checkConstraints" in refused(tmp_path)["merge"]
    other = tmp_path / "other"
    computed = Field("twice", "long", metadata={"delta.generationExpression": "id * 2"})
    DeltaTable.create((other / "items").as_uri(), Schema([Field("id", "long"), computed]))
    assert "uses generatedColumns" in refused(other)["append"]


@pytest.mark.parametrize(
    "kind",
    [
        ArrayType("long", contains_null=False),
        MapType("string", "long", value_contains_null=False),
        StructType([Field("a", "long", nullable=False)]),
    ],
    ids=str,
)
def test_a_table_that_refuses_null_within_a_column_is_replaced_only(tmp_path: Path, kind: Any) -> None:
    DeltaTable.create((tmp_path / "items").as_uri(), Schema([Field("id", "long"), Field("v", kind)]))
    found = refused(tmp_path)
    assert "replace" not in found
    assert "refuses NULL within column 'v'" in found["append"]
    other = tmp_path / "other"
    DeltaTable.create((other / "items").as_uri(), Schema([Field("v", ArrayType(kind, contains_null=True))]))
    assert "refuses NULL within column 'v'" in refused(other)["merge"]


def test_a_table_for_appends_alone_takes_nothing_else(tmp_path: Path) -> None:
    made(tmp_path, configuration={"delta.appendOnly": "true"})
    found = refused(tmp_path)
    assert "append" not in found
    assert "delta.appendOnly" in found["merge"]
    assert "delta.appendOnly" in found["replace"]


@pytest.mark.parametrize(
    "name", ["AWS_S3_ALLOW_UNSAFE_RENAME", "aws_conditional_put", "allow_unsafe_rename", "AWS_COPY_IF_NOT_EXISTS"]
)
def test_an_unsafe_store_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectorConfigError, match="conditional PUT"):
        destination_of(tmp_path, path="s3://bucket/lake", storage_options={name: "true"})
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "yes")
    with pytest.raises(ConnectorConfigError, match="AWS_S3_ALLOW_UNSAFE_RENAME is set"):
        destination_of(tmp_path, path="s3://bucket/lake").check()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"path": "http://host/lake"}, "hold no Delta tables"),
        ({"path": "lake%20"}, "may not have a `%`"),
        ({"path": "s3://user:pa/ss@bucket"}, "percent-encode"),
        ({"path": "lake", "partition_by": ["a", "A"]}, "twice"),
        ({"path": "lake", "partition_by": ["year(at)"]}, "whole values"),
    ],
)
def test_settings_that_cannot_be_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ConnectorConfigError, match=said) as caught:
        parse_settings(DeltaSettings, config, "delta")
    assert "pa/ss" not in str(caught.value)


def test_a_url_of_a_file_and_a_path_are_one_place(tmp_path: Path) -> None:
    run(destination_of(tmp_path), load_of("append", "t0"), items((1, "a")), FINAL)
    other = destination_of(tmp_path, path=f"file://{tmp_path}")
    assert other.identity() == destination_of(tmp_path).identity() == f"delta://{tmp_path}"
    run(other, load_of("append", "t1"), items((2, "b")), FINAL)
    assert len(read_table(tmp_path, "items") or []) == 2


def test_a_password_is_in_no_label(tmp_path: Path) -> None:
    assert destination_of(tmp_path, path="s3://user:secret@bucket/lake").identity() == "delta+s3://bucket/lake"


def test_a_folder_of_other_files_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "a.parquet").write_bytes(b"x")
    assert not destination_of(tmp_path).describe(["items"])["items"].is_table


@pytest.mark.parametrize("name", ["a", "A b", "ünï", "a/b", "..", ".a", "_x", "a%20b", "a~b", "x.y", "'\"`", " a "])
def test_each_table_has_a_folder_of_its_own(name: str) -> None:
    folder = folder_name(name)
    assert table_name(folder) == name
    assert not set(folder) & set("/%\"'")
    assert folder[0] not in "._"


@pytest.mark.parametrize("name", ["", "x" * 201, "\ud800"])
def test_a_name_that_makes_no_folder_is_refused(name: str) -> None:
    with pytest.raises(FatalConnectorError, match="table name"):
        folder_name(name)


def test_columns_that_differ_in_case_from_those_of_the_table_are_refused(tmp_path: Path) -> None:
    destination = destination_of(tmp_path)
    run(destination, load_of("append", "t0"), items((1, "a")), FINAL)
    other = pa.schema([*ITEMS, ("NAME", pa.string())])
    state = destination.describe(["items"])["items"]
    stated = destination.keeps(load_of("append", "t1", other).stream, state, WriteDisposition.APPEND)[2]
    assert (stated.arrow, "in case only" in stated.note) == (None, True)
    batch = pa.RecordBatch.from_pylist([{"id": 1, "NAME": "x"}], schema=other)
    with pytest.raises(FatalConnectorError, match="'name' and 'NAME' differ in case only"):
        run(destination, load_of("append", "t1", other), batch, Checkpoint(is_final=True))
