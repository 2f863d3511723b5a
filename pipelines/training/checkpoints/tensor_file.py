"""A safetensors file written tensor by tensor, so that its contents are never in memory at once.

The bytes are those that `safetensors.torch.save_file` writes for the same tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

# In the order of the file: wide numbers first, which keeps all of them aligned.
_DTYPES = {
    torch.int64: "I64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
}


def in_file_order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names in the order in which their contents follow each other. Raises KeyError for a dtype
    that no checkpoint holds."""
    order = {dtype: place for place, dtype in enumerate(_DTYPES)}
    return sorted(tensors, key=lambda name: (order[tensors[name].dtype], name))


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    contents: Iterable[Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Shapes and dtypes are those of `tensors`; `contents` gives their numbers, in file order, and
    is asked for the next tensor only when the one before is written."""
    names = in_file_order(tensors)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, value in zip(names, contents, strict=False):
            if value.shape != tensors[name].shape or value.dtype != tensors[name].dtype:
                raise ValueError(f"{path}: {name} is not what the header says")
            plain = value.detach().cpu().contiguous()
            file.write(plain.reshape(-1).view(torch.uint8).numpy().data)
