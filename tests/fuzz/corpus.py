"""Whole files to damage: the generated world, the real clips, in every kind we read."""

from __future__ import annotations

from pathlib import Path

from pipelines.footage import write_world
from pipelines.media import write_image
from tests.pipelines.curation.rights.signed_media import sign
from tests.pipelines.pictures import ffmpeg, film, moving_square, numbered, real_clip

REFUSES = {"c2pa.ai_training": "notAllowed", "c2pa.data_mining": "allowed"}
#: Container and codec of short copies: (suffix, FFmpeg's options).
COPIES: dict[str, tuple[str, ...]] = {
    "mp4": ("-c:v", "libx264", "-g", "10"),
    "fragments.mp4": ("-c:v", "libx264", "-movflags", "+frag_keyframe+empty_moov"),
    "mkv": ("-c:v", "libx264", "-bf", "2"),
    "hevc.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none"),
    "webm": ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime"),
    "av1.mkv": ("-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "lp=1"),
    "avi": ("-c:v", "mpeg4"),
    "ts": ("-c:v", "mpeg2video"),
    "mov": ("-c:v", "prores_ks", "-profile:v", "0"),
    "mjpeg.avi": ("-c:v", "mjpeg"),
    "flv": ("-c:v", "flv1"),
    "gif": (),
}


def media_corpus(folder: Path, *, with_world: bool) -> dict[str, bytes]:
    """File name -> bytes, all of them readable as they are. Sources are short: what is damaged is
    decoded many thousand times."""
    made = folder / "made"
    made.mkdir(parents=True)
    frames = moving_square(1, 15) + moving_square(2, 15)
    drawn = film(made / "drawn.mp4", frames, options={"g": "10"})
    real = {"drawn": drawn}
    for name in ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")[
        : 3 if with_world else 1
    ]:
        real[name.partition(".")[0]] = real_clip(name)
    for stem, source in real.items():
        for suffix, options in COPIES.items():
            target = made / f"{stem}.{suffix}"
            if target != drawn:
                quick = ("-t", "1.2", "-an", "-vf", "scale=160:-2,format=yuv420p")
                wanted = options if suffix != "mov" else (*options, "-pix_fmt", "yuv422p10le")
                ffmpeg("-i", source, *quick, *wanted, target)
    _stills(made)
    if with_world:
        write_world(folder / "world", preset="small", real_clips=False, broken=False)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_truth(path))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _stills(made: Path) -> None:
    picture = numbered(1, 200, 120)[0]
    for suffix in ("jpg", "png", "webp"):
        write_image(made / f"still.{suffix}", picture)
    for plain in ("still.jpg", "still.png", "drawn.mp4"):
        sign(made / plain, made / f"signed-{plain}", REFUSES)


def _is_truth(path: Path) -> bool:
    return path.name.endswith(".json")
