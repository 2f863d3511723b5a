"""Typed, frozen configuration: dataclasses below, a YAML file above, the command line on top.

A job's configuration is one frozen dataclass whose fields are values or further dataclasses
("sections"). `parse_request` makes a command line of it: a plain field is `--footage`, a field of
a section is `--shots.threshold`. Values come from, weakest first: the dataclass's defaults, the
preset (a function returning a configuration), `--config file.yaml`, the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, TypeVar

import yaml

from pipelines.redaction import holds_secret, without_secrets

Config = TypeVar("Config")
Preset = Callable[[], Config]


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


@dataclass(frozen=True)
class Request(Generic[Config]):
    """A parsed command line."""

    config: Config
    preset: str
    dry_run: bool
    as_json: bool = False


# --- canonical form ------------------------------------------------------------------------


def to_plain(value: Any, where: str = "") -> Any:
    """Dataclasses, tuples and scalars as JSON values.

    Raises TypeError, naming the field, on anything that could be written in two ways or read in
    two (sets, objects, NaN, keys that are not text), so that equal configurations have equal hashes
    and unequal ones do not collide.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        return {n: to_plain(getattr(value, n), _below(where, n)) for n in names}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):  # 1 and "1" would be one name in JSON
                raise _no_canonical_form(key, _below(where, "a key"))
        return {_text(k, where): to_plain(value[k], _below(where, k)) for k in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(v, f"{where}[{n}]") for n, v in enumerate(value)]
    if isinstance(value, str):
        return _text(value, where)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value) + 0.0  # -0.0 equals 0.0
    raise _no_canonical_form(value, where)


def _text(value: str, where: str) -> str:
    """JSON writes a character beyond U+FFFF as it writes the two surrogates that make one up; bytes
    of file names that are not UTF-8 (lone low surrogates) cannot be mistaken so."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _no_canonical_form(value, where) from None
    return value


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _no_canonical_form(value: Any, where: str) -> TypeError:
    shown = " ".join(repr(value)[:60].split())
    return TypeError(f"{where or 'value'}: {shown} ({type(value).__name__}) has no canonical form")


def config_hash(value: Any) -> str:
    """First 32 hex digits of the sha256 of the canonical JSON of `value`. Raises as `to_plain`."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def from_plain(kind: type[Config], plain: Mapping[str, Any], where: str = "") -> Config:
    """The inverse of `to_plain`. Raises RequestError naming the field that is wrong."""
    default = kind()
    return _overlay(default, plain, where or kind.__name__)


# --- command line --------------------------------------------------------------------------


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{self.prog}: {message} (see --help)")


def parse_request(
    kind: type[Config],
    presets: Mapping[str, Preset[Config]],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str,
    default_preset: str = "demo",
    examples: str = "",
) -> Request[Config]:
    """Reads a command line into a configuration. Raises RequestError on any bad value."""
    parser = _build_parser(kind, presets, prog, description, default_preset, examples)
    given = vars(parser.parse_args(argv))
    preset = given.pop("preset")
    config = presets[preset]()
    if path := given.pop("config"):
        config = _overlay(config, _read_yaml(path), path)
    dry_run = given.pop("dry_run")
    flags = {name: text for name, text in given.items() if text is not None}
    config = _overlay(config, _nest(flags), "command line")
    _require(config, prog)
    for name, _, _ in leaf_fields(kind):
        check_no_secret(_lookup(config, name), f"{prog}: {name}")
    return Request(config, preset, dry_run)


def check_no_secret(value: Any, where: str) -> None:
    """Raises RequestError for an address with a password, key or signature in it: what is asked for
    is written down with what is made."""
    for text in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(text, str) and holds_secret(text):
            raise RequestError(
                f"{where}: {without_secrets(text)} holds a password or key, which would be "
                "recorded; give it in the environment (AWS_*, MLFLOW_TRACKING_*)"
            )


def leaf_fields(kind: type, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, type, field) of every settable value, in order."""
    hints = typing.get_type_hints(kind)
    leaves: list[tuple[str, Any, Any]] = []
    for f in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[f.name]):
            leaves += leaf_fields(hints[f.name], f"{prefix}{f.name}.")
        else:
            leaves.append((prefix + f.name, hints[f.name], f))
    return leaves


def _build_parser(
    kind: type,
    presets: Mapping[str, Preset[Any]],
    prog: str,
    description: str,
    default_preset: str,
    examples: str,
) -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog=prog,
        description=description,
        epilog=examples,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--preset",
        choices=sorted(presets),
        default=default_preset,
        help=f"starting values (default: {default_preset})",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file laid over the preset")
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, say what would be done, stop"
    )
    shown = presets[default_preset]()
    groups: dict[str, Any] = {}
    for name, hint, f in leaf_fields(kind):
        section = name.rpartition(".")[0]
        if section not in groups:
            title = section or "what to work on"
            groups[section] = parser.add_argument_group(title)
        groups[section].add_argument(
            "--" + name.replace("_", "-") if "." not in name else "--" + name,
            *(["--" + name] if "_" in name and "." not in name else []),
            dest=name,
            metavar=_metavar(hint),
            help=_help_line(f, _lookup(shown, name)),
        )
    return parser


def _help_line(f: Any, default: Any) -> str:
    text = f.metadata.get("help", "").replace("%", "%%")
    unit = f.metadata.get("unit", "")
    if f.metadata.get("required"):
        return f"{text} (required)"
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    shown = f"default: {'none' if default in (None, '') else default}"
    return f"{text} [{unit}] ({shown})" if unit else f"{text} ({shown})"


def _metavar(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return _metavar(next(a for a in typing.get_args(hint) if a is not type(None)))
    if typing.get_origin(hint) is tuple:
        return "A,B,..."
    return {bool: "true|false", int: "N", float: "X", str: "TEXT"}.get(hint, "VALUE")


def _lookup(config: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        config = getattr(config, part)
    return config


def _nest(flags: Mapping[str, str]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for dotted, text in flags.items():
        *sections, name = dotted.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = text
    return tree


def _text_at(uri: str) -> str:
    from pipelines.storage.single_files import read_text  # which stands on this file

    return read_text(uri)


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(_text_at(path))
    except OSError as error:
        reason = error.strerror or "no such file"
        raise RequestError(f"--config {path}: {reason}; give a readable file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(f"--config {path}: not YAML ({reason})") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise RequestError(f"--config {path}: expected `name: value` lines, found {loaded!r:.60}")
    return loaded


def _overlay(config: Config, values: Mapping[str, Any], where: str) -> Config:
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
            changes[name] = _overlay(current, value, f"{where}: {name}")
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


def _require(config: Any, prog: str) -> None:
    missing = [
        "--" + f.name.replace("_", "-")
        for f in dataclasses.fields(config)
        if f.metadata.get("required") and getattr(config, f.name) in ("", None)
    ]
    if missing:
        raise RequestError(f"{prog}: {' and '.join(missing)} must be given (see --help)")
