from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from pipelines.lineage import fingerprint


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


def test_it_costs_next_to_nothing() -> None:
    fingerprint.code_sha256.cache_clear()
    started_s = time.monotonic()
    fingerprint.fingerprint()
    assert time.monotonic() - started_s < 1.0  # 0.04 s alone; the machine may be busy
