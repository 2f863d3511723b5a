"""A fixture: an object store that this process and the jobs it starts find in the environment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.object_store import ObjectStore, object_store, set_in_this_process


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    folder = tmp_path_factory.mktemp("objects")
    with object_store(folder) as store, set_in_this_process(store.environment):
        yield store
