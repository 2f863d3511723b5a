"""Files written tensor by tensor are those that safetensors writes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipelines.training.checkpoints.tensor_file import in_file_order, write_tensors

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8)
TENSORS = st.dictionaries(
    st.text('abz.é"', min_size=1, max_size=5),
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3)),
    max_size=6,
)


@given(TENSORS, st.sampled_from([None, {"format": "pt"}]))
def test_the_bytes_are_those_of_safetensors(tmp_path_factory, drawn, metadata):
    folder = tmp_path_factory.mktemp("files")
    tensors = {n: torch.randint(0, 99, s).to(dtype) for n, (dtype, s) in drawn.items()}
    save_file(tensors, folder / "theirs", metadata)
    contents = (tensors[name] for name in in_file_order(tensors))
    write_tensors(folder / "ours", tensors, contents, metadata)
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()


def test_the_next_tensor_is_asked_for_when_the_one_before_is_written(tmp_path):
    tensors = {name: torch.full((1 << 20,), float(ord(name))) for name in "abc"}
    sizes = []

    def contents():
        for name in in_file_order(tensors):
            sizes.append((tmp_path / "file").stat().st_size)
            yield tensors[name]

    write_tensors(tmp_path / "file", tensors, contents())
    assert sizes == sorted(set(sizes))
    assert all(torch.equal(v, tensors[n]) for n, v in load_file(tmp_path / "file").items())


def test_contents_that_are_not_what_the_header_says_are_refused(tmp_path):
    tensors = {"a": torch.zeros(3)}
    with pytest.raises(ValueError, match="a is not what the header says"):
        write_tensors(tmp_path / "file", tensors, [torch.zeros(4)])
