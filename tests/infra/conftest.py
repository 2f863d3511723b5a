from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.infra.deployed import Logins, mlflow_with_logins
from tests.servers.postgres import postgres


@pytest.fixture(scope="package")
def logins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logins]:
    """MLflow as compose.yaml starts it, with the login of the jobs."""
    with (
        postgres() as database,
        mlflow_with_logins(tmp_path_factory.mktemp("mlflow"), database) as mlflow,
    ):
        yield mlflow
