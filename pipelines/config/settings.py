"""The fields that configurations are made of, and the sections that every job has."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


class RequestError(Exception):
    """What was asked for cannot be done: one line saying what, where, and how to mend it.

    Jobs print it without a traceback and exit with 2 (design: "Command lines").
    """


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A configuration field with the sentence, the unit and the range that `--help` shows."""
    metadata = {"help": help, "unit": unit, "low": low, "high": high}
    if default is dataclasses.MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata)


def required(help: str) -> Any:
    """A field that the request must give; empty until then."""
    return field(default="", metadata={"help": help, "required": True, "unit": ""})


@dataclass(frozen=True)
class ClusterConfig:
    """Where the work runs."""

    address: str = setting("", "Ray cluster to join; empty: RAY_ADDRESS, else a local Ray")
    num_cpus: int = setting(0, "cores of the local Ray; 0: all", unit="cores", low=0)


@dataclass(frozen=True)
class TrackingConfig:
    """Where lineage is recorded (MLflow)."""

    uri: str = setting("", "MLflow tracking URI; empty: MLFLOW_TRACKING_URI, else a local sqlite")
    project: str = setting("i2vgen-ray", "MLflow experiment that holds the runs")
    enabled: bool = setting(True, "record runs in MLflow")
