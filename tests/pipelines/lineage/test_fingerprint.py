from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from model.encoders import asset_digests
from pipelines.config import to_plain
from pipelines.curation.prepared import CUTTING, SAYING, SEEING
from pipelines.lineage import fingerprint
from pipelines.media.build import ffmpeg_build


def small_checkout(root: Path) -> Path:
    (root / "pipelines" / "deep").mkdir(parents=True)
    (root / "pipelines" / "a.py").write_text("one = 1\n")
    (root / "pipelines" / "deep" / "b.py").write_text("two = 2\n")
    (root / "requirements.lock").write_text("numpy==2.0\n")
    return root


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


def test_it_is_canonical_json_of_what_decides_a_result() -> None:
    found = fingerprint.fingerprint()
    assert json.loads(json.dumps(found)) == found == fingerprint.fingerprint()
    assert {"av", "torch", "numpy"} <= set(found["packages"])
    assert str(fingerprint.ROOT) not in json.dumps(found)


def test_a_copy_without_git_is_the_same_code(tmp_path: Path) -> None:
    checkout = small_checkout(tmp_path / "checkout")
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    unpacked = tmp_path / "ray_package"
    shutil.copytree(checkout, unpacked, ignore=shutil.ignore_patterns(".git"))
    (unpacked / "pipelines" / "__pycache__").mkdir()
    (unpacked / "pipelines" / "__pycache__" / "a.pyc").write_bytes(b"compiled")
    assert fingerprint.code_sha256(checkout) == fingerprint.code_sha256(unpacked)
    assert fingerprint.lock_sha256(checkout) == fingerprint.lock_sha256(unpacked) is not None
    assert len(fingerprint.git_state(checkout)["commit"]) == 40
    assert fingerprint.git_state(unpacked) == {}


def test_every_change_of_the_code_shows(tmp_path: Path) -> None:
    first = fingerprint.code_sha256(small_checkout(tmp_path / "1"))
    edited, renamed, moved = (small_checkout(tmp_path / name) for name in "234")
    (edited / "pipelines" / "a.py").write_text("one = 2\n")
    (renamed / "pipelines" / "a.py").rename(renamed / "pipelines" / "c.py")
    (moved / "pipelines" / "a.py").write_text("one = 1\ntwo = 2\n")
    (moved / "pipelines" / "deep" / "b.py").write_text("")
    hashes = {fingerprint.code_sha256(root) for root in (edited, renamed, moved)}
    assert len({first, *hashes}) == 4


def test_uncommitted_changes_show_beside_the_commit(tmp_path: Path) -> None:
    checkout = small_checkout(tmp_path / "checkout")
    git(checkout, "init", "-q")
    assert fingerprint.git_state(checkout) == {}
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    assert set(fingerprint.git_state(checkout)) == {"commit"}
    (checkout / "pipelines" / "a.py").write_text("one = 3\n")
    assert set(fingerprint.git_state(checkout)) == {"commit", "diff_sha256"}


def test_it_names_the_build_of_ffmpeg_and_the_embedded_weights() -> None:
    found = fingerprint.fingerprint()
    assert found["ffmpeg"] == ffmpeg_build()
    assert asset_digests().items() <= found["weights"].items()


def test_every_package_that_decides_a_stage_of_curation_is_in_it() -> None:
    named = {name.replace("_", "-") for name in (*SEEING, *SAYING, *CUTTING)}
    assert named <= set(fingerprint.PACKAGES)


def test_it_has_a_canonical_form() -> None:
    """No value in it is written in two ways."""
    found = fingerprint.fingerprint()
    assert to_plain(found) == found


def test_weights_are_known_by_their_bytes(tmp_path: Path) -> None:
    head, other = tmp_path / "head.safetensors", tmp_path / "elsewhere" / "head.safetensors"
    other.parent.mkdir()
    head.write_bytes(b"one")
    other.write_bytes(b"one")
    (tmp_path / "notes.txt").write_bytes(b"not weights")
    names = ("", "embedded", "ViT-H-14:laion2b", "coca:embedded", str(tmp_path / "notes.txt"))
    assert fingerprint.weights(*names, root=tmp_path) == {}
    first = fingerprint.weights(*names, str(head), root=tmp_path)
    assert first == {"head.safetensors": hashlib.sha256(b"one").hexdigest()}
    assert fingerprint.weights(str(other), str(head), root=tmp_path) == first
    other.write_bytes(b"retrained")
    both = fingerprint.weights(str(other), str(head), root=tmp_path)
    assert both == fingerprint.weights(str(head), str(other), root=tmp_path) != first
    assert list(both) == ["head.safetensors"]


def test_the_embedded_weights_of_a_copy_are_the_same(tmp_path: Path) -> None:
    checkout, copy = tmp_path / "1", tmp_path / "2"
    (checkout / "model" / "assets" / "vae").mkdir(parents=True)
    (checkout / "model" / "assets" / "vae" / "a.safetensors").write_bytes(b"weights")
    (checkout / "model" / "assets" / "words.txt.gz").write_bytes(b"words")
    (checkout / "model" / "assets" / "card.md").write_bytes(b"of no effect")
    shutil.copytree(checkout, copy)
    found = fingerprint.weights(root=checkout)
    assert found == fingerprint.weights(root=copy)
    assert set(found) == {"vae/a.safetensors", "words.txt.gz"}
    (tmp_path / "3").mkdir()
    assert fingerprint.weights(root=tmp_path / "3") == {}


def test_only_who_asks_for_it_pays_for_pyav() -> None:
    code = (
        "import sys, pipelines.lineage.fingerprint; print(sorted({'av', 'torch'} & {*sys.modules}))"
    )
    ran = [sys.executable, "-c", code]
    done = subprocess.run(ran, cwd=fingerprint.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_costs_next_to_nothing() -> None:
    fingerprint.fingerprint()  # imports
    cold_s: list[float] = []
    warm_s: list[float] = []
    for _ in range(5):
        fingerprint.code_sha256.cache_clear()
        fingerprint.lock_sha256.cache_clear()
        fingerprint._package_versions.cache_clear()
        fingerprint._embedded_weights.cache_clear()
        for taken_s in (cold_s, warm_s):
            started_s = time.monotonic()
            fingerprint.fingerprint()
            taken_s.append(time.monotonic() - started_s)
    assert min(cold_s) < 0.5  # 0.04 s alone; the machine may be busy
    assert min(warm_s) < 0.005
