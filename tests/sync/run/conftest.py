"""A Dask cluster that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cluster import Cluster

#: In the environment of the workers, and to be seen nowhere else.
CANARIES = {f"CANARY_{number}": f"canary-{number}-hush" for number in range(20)}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Two workers with nannies."""
    from tests.cluster import Cluster

    made = Cluster(2, **CANARIES)
    yield made
    made.close()
