"""Typed, frozen configuration: dataclasses below, a YAML file above, the command line on top.

A job's configuration is one frozen dataclass whose fields are values or further dataclasses
("sections"). settings.py makes fields, values.py lays given values over them, command_line.py makes
a command of them, canonical.py makes equal ones equal bytes.
"""

from pipelines.config.canonical import config_hash, to_plain
from pipelines.config.command_line import Request, leaf_fields, parse_request
from pipelines.config.settings import (
    ClusterConfig,
    RequestError,
    TrackingConfig,
    required,
    setting,
)
from pipelines.config.values import check_no_secret, from_plain

__all__ = [
    "ClusterConfig",
    "Request",
    "RequestError",
    "TrackingConfig",
    "check_no_secret",
    "config_hash",
    "from_plain",
    "leaf_fields",
    "parse_request",
    "required",
    "setting",
    "to_plain",
]
