"""Contracts of connectors as pytest classes, for shipped connectors and for those of other packages.

    class TestMySource(SourceContract):
        connector = MySource

        @pytest.fixture
        def place(self, tmp_path): ...           # where the data lives: a folder, a database URL
        def config(self, place): ...             # the connector's `config` for that place
        def put(self, place, table, records, key): ...          # seed it, without your own connector

    class TestMyDestination(DestinationContract):
        connector = MyDestination
        ...                                      # place and config as above
        def read_back(self, place, table, schema): ...          # look, without your own connector
        def tables(self, place): ...

`read_back` has no default: a suite that cannot look proves nothing. `quirks` declares with a reason what a connector
cannot do, and the suite then demands an error. `capabilities` names the optional ones (`connectors.capabilities`); each
that a connector has is tested.
"""

import pytest

pytest.register_assert_rewrite(
    "syncblocks.connectors.testing.capabilities",
    "syncblocks.connectors.testing.destination_capabilities",
    "syncblocks.connectors.testing.destination_writes",
    "syncblocks.connectors.testing.destination_ledger",
    "syncblocks.connectors.testing.destination_merges",
    "syncblocks.connectors.testing.destination_rejected",
    "syncblocks.connectors.testing.source_capabilities",
    "syncblocks.connectors.testing.source_base",
    "syncblocks.connectors.testing.source_bookmarks",
    "syncblocks.connectors.testing.source_records",
)

from .destination_contract import DestinationContract  # noqa: E402 -- after the line that makes its assertions talk
from .source_contract import SourceContract  # noqa: E402
from .values import VALUES, Feature, Quirks, Values, canonical, same_records  # noqa: E402

__all__ = [
    "VALUES",
    "DestinationContract",
    "Feature",
    "Quirks",
    "SourceContract",
    "Values",
    "canonical",
    "same_records",
]
