"""A command line of a configuration: `--footage` a field, `--shots.threshold` one of a section.

Values come from, weakest first: the dataclass's defaults, the preset (a function returning a
configuration), `--config file.yaml`, the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import yaml

from pipelines.config.settings import RequestError
from pipelines.config.values import check_no_secret, overlay

Config = TypeVar("Config")
Preset = Callable[[], Config]


@dataclass(frozen=True)
class Request(Generic[Config]):
    """A parsed command line."""

    config: Config
    preset: str
    dry_run: bool
    as_json: bool = False


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
        config = overlay(config, _read_yaml(path), path)
    dry_run = given.pop("dry_run")
    flags = {name: text for name, text in given.items() if text is not None}
    config = overlay(config, _nest(flags), "command line")
    _require(config, prog)
    for name, _, _ in leaf_fields(kind):
        check_no_secret(_lookup(config, name), f"{prog}: {name}")
    return Request(config, preset, dry_run)


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


def _require(config: Any, prog: str) -> None:
    missing = [
        "--" + f.name.replace("_", "-")
        for f in dataclasses.fields(config)
        if f.metadata.get("required") and getattr(config, f.name) in ("", None)
    ]
    if missing:
        raise RequestError(f"{prog}: {' and '.join(missing)} must be given (see --help)")
