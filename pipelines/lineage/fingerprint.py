"""What made an output, apart from its inputs and its configuration: the code and its surroundings.

`fingerprint()` goes into `dataset.json` and must be equal wherever equal code runs: in a git
checkout, and in the copy without `.git` that a Ray job unpacks. So the identity is a hash of our
own source files, so an uncommitted change shows. The git commit says more to a person;
`git_state()` gives it for tags. What makes a configuration one is `pipelines.config.config_hash`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.storage import sha256_of_file

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("jobs", "model", "pipelines")
CODE_SUFFIXES = (".py", ".json", ".yaml")
LOCK_PATTERNS = ("*.lock", "*-lock.txt", "pylock*.toml")
WEIGHTS_SUFFIX = ".safetensors"
ASSETS = ("model", "assets")
ASSET_SUFFIXES = (WEIGHTS_SUFFIX, ".gz")  # .gz: a tokenizer's vocabulary; the .json are code

# Packages whose version can change a pixel, a score, a caption or a weight.
PACKAGES = (
    "av",
    "diffusers",
    "ffmpeg-python",
    "imageio-ffmpeg",
    "nudenet",
    "numpy",
    "onnxruntime",
    "open-clip-torch",
    "opencv-python",
    "opencv-python-headless",
    "pillow",
    "pyarrow",
    "rapidocr-onnxruntime",
    "ray",
    "safetensors",
    "scenedetect",
    "torch",
    "torchvision",
    "transformers",
    "webdataset",
)
GIT_TIMEOUT_S = 5


def fingerprint(*models: str) -> dict[str, Any]:
    """Hashes of our sources, the lock and the weights; versions of Python, of the deciding
    packages and of FFmpeg (`pipelines.media.build`).

    `models`: settings that name weights, see `weights`. The same on every machine that runs the
    same code in the same environment: no paths, host names or times.
    """
    # Late: the media room brings PyAV, which those who only hash text can do without.
    from pipelines.media.build import ffmpeg_build

    return {
        "code_sha256": code_sha256(),
        "lock_sha256": lock_sha256(),
        "python": platform.python_version(),
        "packages": package_versions(),
        "ffmpeg": ffmpeg_build(),
        "weights": weights(*models),
    }


@functools.cache
def code_sha256(root: Path = ROOT) -> str:
    """32 hex digits over the names and bytes of our source files."""
    return _sha256_of_files(root, [path for name in CODE_FOLDERS for path in _code_in(root / name)])


def _code_in(folder: Path) -> Iterator[Path]:
    """A walk by names: pathlib's own takes longer than reading all the files."""
    for where, _, names in os.walk(folder):
        yield from (Path(where, name) for name in names if name.endswith(CODE_SUFFIXES))


@functools.cache
def lock_sha256(root: Path = ROOT) -> str | None:
    """32 hex digits over the lock files at the root; None where there is none."""
    locks = [path for pattern in LOCK_PATTERNS for path in root.glob(pattern)]
    return _sha256_of_files(root, locks) if locks else None


def _sha256_of_files(root: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        data = path.read_bytes()
        name = path.relative_to(root).as_posix()
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:32]


@functools.cache
def _package_versions() -> tuple[tuple[str, str], ...]:
    found = []
    for name in PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def package_versions() -> dict[str, str]:
    return dict(_package_versions())


def weights(*models: str, root: Path = ROOT) -> dict[str, str]:
    """{file: sha256} of the embedded models, and of every weights file among `models`.

    A model retrained under the same name says something else. A name that is no file (of a hub, of
    a server) has no bytes here to hash, and the packages and the configuration stand for it. Files
    are named without their folders; two of one name share a line. Raises OSError on a file that
    cannot be read.
    """
    found = defaultdict(set, {name: {sha256} for name, sha256 in _embedded_weights(root)})
    for path in map(Path, models):
        if path.suffix == WEIGHTS_SUFFIX and path.is_file():
            found[path.name].add(sha256_of_file(path))
    return {name: " ".join(sorted(hashes)) for name, hashes in sorted(found.items())}


@functools.cache
def _embedded_weights(root: Path) -> tuple[tuple[str, str], ...]:
    folder = root.joinpath(*ASSETS)
    paths = (path for path in folder.rglob("*") if path.suffix in ASSET_SUFFIXES)
    return tuple((p.relative_to(folder).as_posix(), sha256_of_file(p)) for p in sorted(paths))


def sha256_of_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def git_state(root: Path = ROOT) -> dict[str, str]:
    """{"commit": ..., "diff_sha256": ...} of a checkout; {} where there is none.

    `diff_sha256` covers tracked files only and is there only when something is uncommitted.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if not commit:
        return {}
    state = {"commit": commit.decode().strip()}
    if diff := _git(root, "diff", "HEAD", "--binary"):
        state["diff_sha256"] = hashlib.sha256(diff).hexdigest()[:32]
    return state


def _git(root: Path, *arguments: str) -> bytes:
    if not (root / ".git").exists():
        return b""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout
