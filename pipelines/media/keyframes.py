"""Where a long film can be entered: its keyframes, each with the number of its picture.

Found by reading the packets without decoding them (a hundredth of a decode). A film whose packets
do not say all of it (no times, times that repeat, an edit list) is not entered in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from pipelines.media.opening import DEFAULT_LIMITS, MediaLimits, opened_video


@dataclass(frozen=True)
class Entry:
    """A keyframe: `frame` counts pictures in order of presentation, `time_s` from the first one,
    which is presented at `film_start_pts`."""

    frame: int
    pts: int
    time_s: float
    film_start_pts: int


def entries(path: str | Path, every_s: float, limits: MediaLimits = DEFAULT_LIMITS) -> list[Entry]:
    """Keyframes at least `every_s` apart, the film's first picture the first of them.

    Empty when the film can only be watched from its beginning. Raises MediaError.
    """
    with opened_video(path, limits) as (container, stream):
        time_base = stream.time_base
        pts: list[int] = []
        keys: list[int] = []
        try:
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                if packet.pts is None or packet.is_corrupt or packet.is_discard:
                    return []
                pts.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        except (av.FFmpegError, OSError):
            return []
        said = stream.frames or len(pts)
    shown = np.unique(np.array(pts, dtype=np.int64))
    if not keys or time_base is None or len(shown) != len(pts) or said != len(pts):
        return []
    start = int(shown[0])
    found: list[Entry] = []
    for key in sorted(keys):
        time_s = float((key - start) * time_base)
        if not found or time_s >= found[-1].time_s + every_s:
            found.append(Entry(int(np.searchsorted(shown, key)), key, time_s, start))
    return found if found[0].frame == 0 else []
