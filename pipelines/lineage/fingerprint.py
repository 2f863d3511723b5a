"""What made an output, apart from its inputs and its configuration: the code and its surroundings.

`fingerprint()` goes into `dataset.json` and must be equal wherever equal code runs: in a git
checkout, and in the copy without `.git` that a Ray job unpacks. So the identity is a hash of our
own source files. The git commit says more to a person; `git_state()` gives it for tags.
"""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("jobs", "model", "pipelines")
CODE_SUFFIXES = (".py", ".json", ".yaml")
LOCK_PATTERNS = ("*.lock", "*-lock.txt", "pylock*.toml")

# Packages whose version can change a pixel, a score, a caption or a weight.
PACKAGES = (
    "av",
    "diffusers",
    "ffmpeg-python",
    "imageio-ffmpeg",
    "numpy",
    "open-clip-torch",
    "opencv-python-headless",
    "pillow",
    "pyarrow",
    "ray",
    "safetensors",
    "scenedetect",
    "torch",
    "torchvision",
    "webdataset",
)
GIT_TIMEOUT_S = 5


def fingerprint() -> dict[str, Any]:
    """Hash of our sources and of the lock, Python's and the deciding packages' versions.

    The same on every machine that runs the same code in the same environment: no paths, host
    names or times. FFmpeg's builds are named by the wheels that carry them (`av`,
    `imageio-ffmpeg`).
    """
    return {
        "code_sha256": code_sha256(),
        "lock_sha256": lock_sha256(),
        "python": platform.python_version(),
        "packages": package_versions(),
    }


@functools.cache
def code_sha256(root: Path = ROOT) -> str:
    """32 hex digits over the names and bytes of our source files."""
    found = (path for folder in CODE_FOLDERS for path in (root / folder).rglob("*"))
    return _sha256_of_files(root, (path for path in found if path.suffix in CODE_SUFFIXES))


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
