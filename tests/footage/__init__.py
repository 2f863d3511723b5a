"""The generated corpus that other tests stand on.

A test module gets the fixture with `pytest_plugins = ("tests.footage",)`.
"""

from __future__ import annotations

import pytest

from pipelines.footage import write_world
from pipelines.world.truth import WorldManifest


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> WorldManifest:
    """The "small" preset with real clips and broken files, written once: do not change it."""
    folder = tmp_path_factory.mktemp("footage") / "world"
    return write_world(folder, seed=0, preset="small")
