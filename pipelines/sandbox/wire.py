"""Values as bytes and back, where the other side may be hostile: reading them runs no code.

A decoding process that a film has taken over may send whatever it likes (calls.py). What arrives
is MessagePack with a few kinds of its own: tuples, paths, arrays of numbers, and the frozen
dataclasses of this project, by name. A dataclass is made only when its module is one of ours, and
every field is of the type that the class declares; nothing else can come out of these bytes.

    length of the tree (8 bytes) | tree (MessagePack) | bytes of the arrays, one after another
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import struct
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

_LENGTH = struct.Struct("<Q")
#: What a list of the tree is, by its first item.
_LIST, _TUPLE, _PATH, _BYTES, _ARRAY, _RECORD = range(6)
_NUMBERS = frozenset("biufc")  # numpy's kinds of plain numbers; never "O", which holds objects
_PLAIN = (str, int, float, bool, bytes, type(None))
_SMALL_BYTES = 256  # longer ones lie behind the tree, where they are copied once
_MAX_DEPTH = 64


class WireError(ValueError):
    """Bytes that are no message, or a value that has no place in one."""


def encode(value: Any) -> bytes:
    """Raises WireError for anything but None, bool, int (64 bits), float, str, bytes, list, dict,
    tuple, Path, numpy's numbers and arrays of them, and dataclasses of `pipelines`."""
    behind: list[Any] = []
    try:
        plain = _Writer(behind).plain(value, _MAX_DEPTH)
        tree = msgpack.packb(plain, strict_types=True, unicode_errors="surrogatepass")
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(str(error)) from None
    return b"".join([_LENGTH.pack(len(tree)), tree, *behind])


def decode(data: bytes, expected: Any = Any, *, importing: bool = False) -> Any:
    """The value, which is of the type `expected`. Raises WireError, and nothing else.

    Only `importing` reads modules that this process has not: never for what a stranger sent.
    """
    view = memoryview(data)
    try:
        (length,) = _LENGTH.unpack_from(view)
        end = _LENGTH.size + length
        tree = msgpack.unpackb(
            view[_LENGTH.size : end],
            ext_hook=_no_extension,
            unicode_errors="surrogatepass",
            strict_map_key=False,
        )
        value = _Reader(view[end:], importing).value(tree, _MAX_DEPTH)
    except WireError:
        raise
    except (ValueError, TypeError, struct.error, msgpack.UnpackException, RecursionError) as error:
        raise WireError(f"{type(error).__name__}: {error}") from None
    if not conforms(value, expected):
        raise WireError(f"a {type(value).__name__} came where {expected} is due")
    return value


def _no_extension(code: int, data: bytes) -> Any:
    raise WireError(f"no value of kind {code}")


# --- writing -----------------------------------------------------------------------------------


class _Writer:
    def __init__(self, behind: list[Any]) -> None:
        self._behind = behind
        self._num_bytes = 0

    def plain(self, value: Any, depth: int) -> Any:
        """The value as MessagePack's own kinds."""
        kind = type(value)
        if kind in (str, int, float, bool, type(None)):
            return value
        if not depth:
            raise WireError("nested too deep")
        if kind in (list, tuple):
            mark = _LIST if kind is list else _TUPLE
            return [mark, *(self.plain(item, depth - 1) for item in value)]
        if kind is dict:
            return {key: self.plain(item, depth - 1) for key, item in value.items()}
        if kind is bytes:
            return value if len(value) <= _SMALL_BYTES else [_BYTES, *self._put(value, len(value))]
        if isinstance(value, Path):
            return [_PATH, str(value)]
        if isinstance(value, np.generic) and value.dtype.kind in "biuf":
            return value.item()
        if isinstance(value, np.ndarray) and value.dtype.kind in _NUMBERS:
            flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
            start, _ = self._put(flat.data, flat.nbytes)
            return [_ARRAY, value.dtype.str, list(value.shape), start]
        if dataclasses.is_dataclass(kind):
            fields = [self.plain(getattr(value, n), depth - 1) for n in _types_of(kind)]
            return [_RECORD, _module_of_ours(kind.__module__), kind.__qualname__, *fields]
        raise WireError(f"a {kind.__module__}.{kind.__qualname__} cannot be sent")

    def _put(self, data: Any, num_bytes: int) -> tuple[int, int]:
        """(where it begins, how long it is) behind the tree."""
        start = self._num_bytes
        self._behind.append(data)
        self._num_bytes += num_bytes
        return start, num_bytes


# --- reading -----------------------------------------------------------------------------------


class _Reader:
    def __init__(self, behind: memoryview, importing: bool) -> None:
        self._behind = behind
        self._importing = importing

    def value(self, plain: Any, depth: int) -> Any:
        kind = type(plain)
        if kind is dict:
            return {key: self.value(item, depth - 1) for key, item in plain.items()}
        if kind is not list:
            return plain
        if not depth:
            raise WireError("nested too deep")
        mark, *items = plain
        if mark in (_LIST, _TUPLE) and type(mark) is int:
            values = [self.value(item, depth - 1) for item in items]
            return values if mark == _LIST else tuple(values)
        if mark == _PATH and conforms(items, list[str]):
            return Path(*items)
        if mark == _BYTES and conforms(items, list[int]):
            start, num_bytes = items
            return bytes(self._taken(start, num_bytes))
        if mark == _ARRAY:
            return self._array(*items)
        if mark == _RECORD:
            module, name, *fields = items
            found = _class_named(module, name, self._importing)
            return _record(found, [self.value(field, depth - 1) for field in fields])
        raise WireError(f"no value of kind {mark!r}")

    def _array(self, kind: str, shape: list[int], start: int) -> np.ndarray:
        dtype = np.dtype(kind) if isinstance(kind, str) and len(kind) < 8 else None
        if dtype is None or dtype.kind not in _NUMBERS or not conforms(shape, list[int]):
            raise WireError(f"no array of {kind!r}")
        count = math.prod(shape)
        if min(shape, default=0) < 0:
            raise WireError(f"no array of shape {shape}")
        data = self._taken(start, count * dtype.itemsize)
        # Copied: a view would keep the whole message, and could not be written to.
        return np.frombuffer(data, dtype, count).reshape(shape).copy()

    def _taken(self, start: int, num_bytes: int) -> memoryview:
        if not 0 <= start <= start + num_bytes <= len(self._behind):
            raise WireError("more bytes are named than came")
        return self._behind[start : start + num_bytes]


def _record(kind: type, fields: list[Any]) -> Any:
    types_of = _types_of(kind)
    if len(fields) != len(types_of):
        raise WireError(f"{kind.__name__} has {len(types_of)} fields")
    for (name, declared), value in zip(types_of.items(), fields, strict=True):
        if not conforms(value, declared):
            raise WireError(f"{kind.__name__}.{name} cannot be a {type(value).__name__}")
    return kind(**dict(zip(types_of, fields, strict=True)))


def _class_named(module: str, name: str, importing: bool) -> type:
    if not isinstance(module, str) or not isinstance(name, str):
        raise WireError("no class")
    home = sys.modules.get(_module_of_ours(module))
    if home is None and importing:
        home = importlib.import_module(module)
    kind = vars(home).get(name) if home is not None else None
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module:
        return kind
    raise WireError(f"{module}.{name} is no record of this project")


def _module_of_ours(name: str) -> str:
    if name.split(".")[0] != "pipelines":
        raise WireError(f"{name} is not a module of this project")
    return name


@cache
def _types_of(kind: type) -> dict[str, Any]:
    """Declared type by field, in order."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


# --- types -------------------------------------------------------------------------------------


def conforms(value: Any, expected: Any) -> bool:
    """Whether the value is of the declared type, to its last item; an int may stand for a float.

    What a declaration says beyond classes and their items (a TypeVar, a protocol) is not judged.
    """
    if expected is Any or (expected in _PLAIN and type(value) is expected):
        return True
    origin, arguments = _parts_of(expected)
    if origin in (typing.Union, types.UnionType):
        return any(conforms(value, option) for option in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in _ITEMS:
        return _ITEMS[origin](value, arguments)
    if expected is None or expected is type(None):
        return value is None
    if expected is float:
        return isinstance(value, (float, int)) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    plain = origin or expected
    return isinstance(value, plain) if isinstance(plain, type) else True


@cache
def _parts_of(declared: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(declared), typing.get_args(declared)


def _is_list(value: Any, items: tuple[Any, ...]) -> bool:
    return isinstance(value, list) and all(conforms(v, items[0]) for v in value)


def _is_sequence(value: Any, items: tuple[Any, ...]) -> bool:
    return isinstance(value, (list, tuple)) and all(conforms(v, items[0]) for v in value)


def _is_tuple(value: Any, items: tuple[Any, ...]) -> bool:
    if not isinstance(value, tuple):
        return False
    if len(items) == 2 and items[1] is Ellipsis:
        return all(conforms(v, items[0]) for v in value)
    return len(value) == len(items) and all(map(conforms, value, items))


def _is_mapping(value: Any, items: tuple[Any, ...]) -> bool:
    return isinstance(value, dict) and all(
        conforms(k, items[0]) and conforms(v, items[1]) for k, v in value.items()
    )


_ITEMS: dict[Any, Callable[[Any, tuple[Any, ...]], bool]] = {
    list: _is_list,
    Sequence: _is_sequence,
    tuple: _is_tuple,
    dict: _is_mapping,
    Mapping: _is_mapping,
}
