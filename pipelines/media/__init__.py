"""The only door to FFmpeg (through PyAV): nothing outside this package imports `av`.

write.py and encoders.py make files; opening.py, probe.py and frames.py read them within limits;
cut.py takes a clip out of its source. Footage is read in a child process (pipelines.sandbox.calls).
"""

from pipelines.media.between import pictures_between
from pipelines.media.cut import cut_clip, cut_clips
from pipelines.media.cut_order import (
    Coding,
    Crop,
    CutFailure,
    CutOrder,
    CutResult,
    FrameSpan,
    Method,
)
from pipelines.media.errors import MediaError
from pipelines.media.frames import (
    PictureStream,
    TimedPicture,
    opened_pictures,
    read_clip_frames,
)
from pipelines.media.keyframes import Entry, entries
from pipelines.media.opening import MediaLimits, is_image
from pipelines.media.picture import Picture, SmallPicture, small_of_rgb
from pipelines.media.probe import MediaInfo, probe, read_image
from pipelines.media.write import jpeg_bytes, set_rotation, write_image, write_video

__all__ = [
    "Coding",
    "Crop",
    "CutFailure",
    "CutOrder",
    "CutResult",
    "Entry",
    "FrameSpan",
    "MediaError",
    "MediaInfo",
    "MediaLimits",
    "Method",
    "Picture",
    "PictureStream",
    "SmallPicture",
    "TimedPicture",
    "cut_clip",
    "cut_clips",
    "entries",
    "is_image",
    "jpeg_bytes",
    "opened_pictures",
    "pictures_between",
    "probe",
    "read_clip_frames",
    "read_image",
    "set_rotation",
    "small_of_rgb",
    "write_image",
    "write_video",
]
