"""The ways a generated film is coded: names for settings of `pipelines.media.write_video`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoding:
    """`codec` is FFmpeg's encoder (none for a still), `name` what a decoder calls the result."""

    name: str
    codec: str
    extension: str
    pix_fmt: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = ()
    is_still: bool = False


_X264 = (("preset", "veryfast"), ("crf", "20"))
_X264_FAST = (("preset", "ultrafast"), ("crf", "20"))
_X265 = (("preset", "ultrafast"), ("crf", "20"))
_VP9 = (("deadline", "realtime"), ("cpu-used", "8"), ("crf", "24"))

ENCODINGS: dict[str, Encoding] = {
    "h264": Encoding("h264", "libx264", "mp4", options=_X264),
    "h264_mkv": Encoding("h264", "libx264", "mkv", options=_X264),
    "h264_fast": Encoding("h264", "libx264", "mp4", options=_X264_FAST),
    "h264_low": Encoding("h264", "libx264", "mkv", options=(("preset", "veryfast"), ("crf", "30"))),
    "h264_10bit": Encoding("h264", "libx264", "mkv", "yuv420p10le", _X264_FAST),
    "hevc": Encoding("hevc", "libx265", "mp4", options=_X265),
    "hevc_mov": Encoding("hevc", "libx265", "mov", options=_X265),
    "vp9": Encoding("vp9", "libvpx-vp9", "webm", options=_VP9),
    "av1": Encoding("av1", "libsvtav1", "mp4", options=(("preset", "11"), ("crf", "30"))),
    "mpeg4": Encoding("mpeg4", "mpeg4", "avi", options=(("qscale", "4"),)),
    "mjpeg": Encoding("mjpeg", "mjpeg", "avi", "yuvj420p"),
    "jpeg": Encoding("mjpeg", "", "jpg", "yuvj420p", is_still=True),
    "png": Encoding("png", "", "png", "rgb24", is_still=True),
}
