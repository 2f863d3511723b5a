"""Given values over a configuration: found by name, converted, checked, or refused in one line."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pipelines.config.settings import RequestError
from pipelines.redaction import holds_secret, without_secrets

Config = TypeVar("Config")


def from_plain(kind: type[Config], plain: Mapping[str, Any], where: str = "") -> Config:
    """The inverse of `to_plain`. Raises RequestError naming the field that is wrong."""
    default = kind()
    return overlay(default, plain, where or kind.__name__)


def check_no_secret(value: Any, where: str) -> None:
    """Raises RequestError for an address with a password, key or signature in it: what is asked for
    is written down with what is made."""
    for text in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(text, str) and holds_secret(text):
            raise RequestError(
                f"{where}: {without_secrets(text)} holds a password or key, which would be "
                "recorded; give it in the environment (AWS_*, MLFLOW_TRACKING_*)"
            )


def overlay(config: Config, values: Mapping[str, Any], where: str) -> Config:
    """`config` with `values` laid over it. Raises RequestError naming the field and the place."""
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; there are {sorted(hints)}"
            raise RequestError(f"{where}: no setting named {name!r}{meant}")
        current = getattr(config, name)
        if dataclasses.is_dataclass(current) and not isinstance(current, type):
            if not isinstance(value, Mapping):
                raise RequestError(f"{where}: {name!r} is a section; give {name}.FIELD")
            changes[name] = overlay(current, value, f"{where}: {name}")
        else:
            changes[name] = _convert(value, hints[name], f"{where}: {name}")
            _check_range(changes[name], config, name, where)
    try:
        return dataclasses.replace(config, **changes)  # type: ignore[type-var]
    except ValueError as error:  # a section's own __post_init__
        raise RequestError(f"{where}: {error}") from error


def _check_range(value: Any, config: Any, name: str, where: str) -> None:
    metadata = next(f.metadata for f in dataclasses.fields(config) if f.name == name)
    low, high = metadata.get("low"), metadata.get("high")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if low is not None and value < low:
            raise RequestError(f"{where}: {name} is {value}, must be at least {low}")
        if high is not None and value > high:
            raise RequestError(f"{where}: {name} is {value}, must be at most {high}")


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None or value in ("none", "null", ""):
            return None
        return _convert(value, next(a for a in arguments if a is not type(None)), where)
    if origin is typing.Literal:
        if value not in arguments:
            raise RequestError(f"{where}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise RequestError(f"{where}: expected a list, got {value!r}")
        kinds = [arguments[0]] * len(items) if arguments[-1] is ... else list(arguments)
        if len(kinds) != len(items):
            raise RequestError(f"{where}: expected {len(kinds)} values, got {len(items)}")
        return tuple(_convert(i, k, where) for i, k in zip(items, kinds, strict=True))
    return _convert_scalar(value, hint, where)


def _convert_scalar(value: Any, hint: Any, where: str) -> Any:
    if hint is bool:
        known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        found = known.get(str(value).lower())
        if found is None:
            raise RequestError(f"{where}: {value!r} is neither true nor false")
        return found
    if hint in (int, float):
        if isinstance(value, bool):
            raise RequestError(f"{where}: {value!r} is not a number")
        try:
            number = hint(value)
        except (TypeError, ValueError):
            kind = "a whole number" if hint is int else "a number"
            raise RequestError(f"{where}: {value!r} is not {kind}") from None
        if not math.isfinite(number) or (hint is int and float(value) != number):
            raise RequestError(f"{where}: {value!r} is not a finite {hint.__name__}")
        return number
    if isinstance(value, (dict, list)):
        raise RequestError(f"{where}: expected one value, got {value!r:.60}")
    return str(value)
