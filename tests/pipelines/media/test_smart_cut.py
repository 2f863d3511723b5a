"""Copied pictures are the source's to the bit, whatever film they are copied from."""

from __future__ import annotations

import itertools
from array import array
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.media import (
    Coding,
    Crop,
    CutFailure,
    CutOrder,
    CutResult,
    FrameSpan,
    cut_clips,
    write_video,
)
from pipelines.media.cut_order import Method
from pipelines.media.packet_table import NotCopyable, PacketTable
from pipelines.media.smart_cut import plan_cut
from tests.pipelines.media.test_h264 import BIKES, sequence_set
from tests.pipelines.pictures import film, real_clip, scenery

NUM_FRAMES = 70


def frames(num_frames: int = NUM_FRAMES) -> list[np.ndarray]:
    """A noisy ride over a landscape, with a hard cut every 17 frames."""
    rng = np.random.default_rng(0)
    ground = scenery(3, 320, 184).astype(int)
    views = []
    for index in range(num_frames):
        view = ground[index % 80 :, 2 * index % 150 :][:92, :160]
        view = 255 - view if index // 17 % 2 else view
        views.append(np.clip(view + rng.integers(-6, 6, view.shape), 0, 255).astype(np.uint8))
    return views


@lru_cache(maxsize=3)
def decoded(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """Every picture's planes, and its presentation time, as FFmpeg decodes them in one go."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        found = [(frame.to_ndarray(), frame.time) for frame in container.decode(stream)]
    return [planes for planes, _ in found], [float(time or 0) for _, time in found]


def order_of(source: Path, out: Path, start: int, end: int, crop: Crop | None = None) -> CutOrder:
    times_s = decoded(source)[1]
    times_s = [t - times_s[0] for t in times_s]
    times_s.append(times_s[-1] + (times_s[1] - times_s[0]))
    return CutOrder(out, FrameSpan(start, end, times_s[start], times_s[end]), crop)


def cut(
    source: Path, folder: Path, spans: list[tuple[int, int]], method: Method = "smart"
) -> list[tuple[CutOrder, CutResult]]:
    orders = [order_of(source, folder / f"{a}-{b}-{method}.mp4", a, b) for a, b in spans]
    results = cut_clips(source, orders, method, Coding(preset="ultrafast"))
    assert not any(isinstance(result, CutFailure) for result in results)
    return list(zip(orders, results, strict=True))  # type: ignore[arg-type]


def check(source: Path, order: CutOrder, result: CutResult) -> int:
    """How many pictures of the clip are the source's to the bit. All are nearly."""
    span = order.span
    clip, times_s = decoded(order.out)
    whole, whole_times_s = decoded(source)
    theirs = whole[span.start_frame : span.end_frame]
    their_times_s = whole_times_s[span.start_frame : span.end_frame]
    assert len(clip) == result.num_frames == span.num_frames
    assert times_s == pytest.approx([t - their_times_s[0] for t in their_times_s], abs=1e-6)
    pairs = list(zip(clip, theirs, strict=True))
    assert max(difference(*pair) for pair in pairs) < 3
    return sum(np.array_equal(*pair) for pair in pairs)


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean over the planes. What is encoded in one piece becomes limited range."""
    ranges = [planes.astype(float) for planes in (ours, theirs)]
    squeezed = 16 + ranges[1] * (219 / 255)
    return float(min(np.abs(ranges[0] - other).mean() for other in (ranges[1], squeezed)))


def x264(path: Path, parameters: str, **options: Any) -> Path:
    return film(path, frames(), options={"preset": "fast", "x264-params": parameters}, **options)


def remuxed(source: Path, out: Path, muxer: str) -> Path:
    with av.open(str(source)) as given, av.open(str(out), "w", format=muxer) as new:
        stream = given.streams.video[0]
        copy = new.add_stream_from_template(stream, opaque=True)
        for packet in given.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    return out


def variable_rate(path: Path) -> Path:
    pts = np.cumsum([1 + (i % 3) for i in range(NUM_FRAMES)]).tolist()
    options = {"x264-params": "keyint=20:bframes=3"}
    write_video(path, frames(), fps=25, frame_pts=pts, time_base=Fraction(1, 60), options=options)
    return path


COPYABLE = {
    "b-pyramid": lambda d: x264(d / "a.mp4", "keyint=25:min-keyint=9:bframes=5:b-pyramid=normal"),
    "scene cuts": lambda d: x264(d / "a.mp4", "keyint=250:bframes=3"),
    "no b-frames": lambda d: x264(d / "a.mp4", "keyint=25:bframes=0"),
    "slices": lambda d: x264(d / "a.mp4", "keyint=15:slices=4"),
    "all intra": lambda d: x264(d / "a.mp4", "keyint=1"),
    "full range": lambda d: x264(d / "a.mp4", "keyint=20", pix_fmt="yuvj420p"),
    "mov": lambda d: x264(d / "a.mov", "keyint=20"),
    "mkv": lambda d: x264(d / "a.mkv", "keyint=20"),
    "ts": lambda d: remuxed(x264(d / "a.mp4", "keyint=20"), d / "a.ts", "mpegts"),
    "flv": lambda d: remuxed(x264(d / "a.mp4", "keyint=20"), d / "a.flv", "flv"),
    "variable rate": lambda d: variable_rate(d / "a.mp4"),
    "open groups": lambda d: x264(d / "a.mp4", "keyint=20:open-gop=1:scenecut=0"),
    "refresh": lambda d: x264(d / "a.mp4", "keyint=20:intra-refresh=1:scenecut=0"),
}

SPANS = [(0, 70), (0, 17), (17, 34), (17, 53), (20, 66), (3, 70), (16, 35), (33, 52), (69, 70)]


@pytest.mark.parametrize("kind", COPYABLE)
def test_copied_pictures_are_the_sources_to_the_bit(kind: str, tmp_path: Path) -> None:
    source = COPYABLE[kind](tmp_path)
    for order, result in cut(source, tmp_path, SPANS):
        same = check(source, order, result)
        if result.method == "copied":
            assert same == result.num_frames
        elif result.method == "copied_with_edges":
            assert same >= result.num_frames / 4
    assert cut(source, tmp_path, [(0, 70)])[0][1].method == "copied"


def test_shots_that_begin_with_keyframes_are_copied_whole(tmp_path: Path) -> None:
    source = real_clip("bikes.mp4")
    spans = list(itertools.pairwise((0, 30, 76, 137, 187, 242, 250)))
    for order, result in cut(source, tmp_path, spans):
        assert result.method == "copied"
        assert check(source, order, result) == result.num_frames


def test_edges_are_coded_again_and_no_more_than_them(tmp_path: Path) -> None:
    source = real_clip("bikes.mp4")
    ((order, result),) = cut(source, tmp_path, [(70, 200)])
    assert result.method == "copied_with_edges"
    assert check(source, order, result) >= 187 - 76
    ((order, result),) = cut(source, tmp_path, [(31, 76)])
    assert result.method == "encoded"


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_span_of_a_real_film(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, length = data.draw(st.sampled_from([("bikes.mp4", 250), ("bigbuckbunny.mp4", 132)]))
    start = data.draw(st.integers(0, length - 1))
    end = data.draw(st.integers(start + 1, min(start + 40, length)))
    source, folder = real_clip(name), tmp_path_factory.mktemp("any")
    ((order, result),) = cut(source, folder, [(start, end)])
    same = check(source, order, result)
    assert same == result.num_frames or result.method != "copied"


def test_a_beginning_of_one_long_group_is_copied(tmp_path: Path) -> None:
    source = real_clip("bigbuckbunny.mp4")
    (whole, start, middle) = cut(source, tmp_path, [(0, 132), (0, 60), (60, 100)])
    assert [r.method for _, r in (whole, start, middle)] == ["copied", "copied", "encoded"]
    assert check(source, *start) == 60


def test_a_clip_is_the_same_bytes_alone_and_among_others(tmp_path: Path) -> None:
    source = x264(tmp_path / "a.mp4", "keyint=20:min-keyint=20:scenecut=0:bframes=3")
    spans = [(0, 15), (15, 38), (38, 40), (40, 57), (57, 70)]
    together = [result for _, result in cut(source, tmp_path, spans)]
    alone = [cut(source, tmp_path, [span])[0][1] for span in reversed(spans)][::-1]
    assert together == alone
    assert {r.method for r in together} >= {"copied_with_edges", "encoded"}


def test_a_call_that_takes_long_gives_what_it_has(tmp_path: Path) -> None:
    source = x264(tmp_path / "a.mp4", "keyint=20")
    orders = [order_of(source, tmp_path / f"{n}.mp4", n, n + 20) for n in (0, 20, 40)]
    assert len(cut_clips(source, orders, stop_after_s=0.0)) == 1


ENCODED = {
    "interlaced": lambda d: x264(d / "a.mp4", "keyint=20:tff=1"),
    "10 bits": lambda d: x264(d / "a.mp4", "keyint=20", pix_fmt="yuv420p10le"),
    "4:4:4": lambda d: x264(d / "a.mp4", "keyint=20", pix_fmt="yuv444p"),
    "turned": lambda d: x264(d / "a.mp4", "keyint=20", rotation_deg=90),
    "hevc": lambda d: film(d / "a.mp4", frames(), codec="libx265"),
    "vp9": lambda d: film(d / "a.webm", frames(), codec="libvpx-vp9"),
    "stretched": lambda d: real_clip("carphone_pristine.mp4"),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_what_cannot_be_copied_exactly_is_encoded(kind: str, tmp_path: Path) -> None:
    source = ENCODED[kind](tmp_path)
    for order, result in cut(source, tmp_path, [(0, 20), (20, 61)]):
        assert result.method == "encoded"
        assert len(decoded(order.out)[0]) == result.num_frames


def test_a_crop_and_the_configuration_can_ask_for_encoding(tmp_path: Path) -> None:
    source = x264(tmp_path / "a.mp4", "keyint=20")
    order = order_of(source, tmp_path / "crop.mp4", 0, 20, Crop(0, 10, 160, 60))
    (result,) = cut_clips(source, [order])
    assert isinstance(result, CutResult) and (result.method, result.height_px) == ("encoded", 60)
    assert cut(source, tmp_path, [(0, 20)], "encode")[0][1].method == "encoded"


def test_an_edit_list_that_begins_inside_a_group_is_not_copied(tmp_path: Path) -> None:
    source = x264(tmp_path / "a.mp4", "keyint=30:min-keyint=30:scenecut=0:bframes=2")
    out = tmp_path / "late.mp4"
    with av.open(str(source)) as given, av.open(str(out), "w") as new:
        stream = given.streams.video[0]
        copy = new.add_stream_from_template(stream, opaque=True)
        for packet in given.demux(stream):
            if packet.dts is not None and packet.pts is not None:
                packet.pts, packet.dts = packet.pts - 5120, packet.dts - 5120
                packet.stream = copy
                new.mux(packet)
    assert len(decoded(out)[0]) == 60
    ((order, result),) = cut(out, tmp_path, [(25, 60)])
    assert result.method == "encoded" and check(out, order, result) == 0


def test_numbers_and_times_that_do_not_agree_are_nobodys_frames(tmp_path: Path) -> None:
    source = x264(tmp_path / "a.mp4", "keyint=20")
    order = CutOrder(tmp_path / "x.mp4", FrameSpan(17, 34, 20 / 25, 34 / 25))
    (result,) = cut_clips(source, [order])
    assert isinstance(result, CutFailure) and result.reason == "cut_failed"
    assert not order.out.exists()


def table(decoding_order: list[int], groups: list[int]) -> PacketTable:
    """Pictures shown at those times, one a second."""
    pts = array("q", decoding_order)
    shown = array("q", sorted(decoding_order))
    sets = sequence_set(BIKES), (b"\x68\xeb",)
    return PacketTable(pts, shown, array("q", groups), Fraction(1), *sets, 4)


@pytest.mark.parametrize(
    ("start", "end", "copied"),
    [
        (0, 8, (0, 8)),
        (0, 4, (0, 4)),
        (0, 3, (0, 1)),  # 1 and 2 are made from 3, which is shown after them
        (0, 7, (0, 6)),
        (4, 8, (4, 8)),
        (3, 8, (4, 8)),
        (2, 8, (4, 8)),
        (3, 5, (4, 5)),
    ],
)
def test_where_a_copy_begins_and_ends(start: int, end: int, copied: tuple[int, int]) -> None:
    film_table = table([0, 3, 1, 2, 4, 5, 7, 6], [0, 4])
    plan = plan_cut(film_table, FrameSpan(start, end, float(start), float(end)))
    assert (plan.first_copied, plan.end_copied) == copied


@pytest.mark.parametrize(("start", "end"), [(1, 4), (5, 8), (0, 9)])
def test_what_is_not_worth_a_copy_or_not_there(start: int, end: int) -> None:
    film_table = table([0, 3, 1, 2, 4, 5, 7, 6], [0, 4])
    with pytest.raises(NotCopyable):
        plan_cut(film_table, FrameSpan(start, end, float(start), float(end)))
