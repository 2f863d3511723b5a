"""Folders on a disk, as large as they may be."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

from pipelines.storage import local_folders


def test_a_folder_goes_with_all_below_and_what_links_lead_to_stays(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "film.mp4").write_bytes(b"film")
    folder = tmp_path / "set"
    (folder / "a" / "b").mkdir(parents=True)
    for path in (folder / "x", folder / "a" / "y", folder / "a" / "b" / "z"):
        path.write_bytes(b"x")
    (folder / "a" / "to a folder").symlink_to(outside)
    (folder / "to nowhere").symlink_to(tmp_path / "nowhere")
    local_folders.remove(folder)
    assert not folder.exists()
    assert (outside / "film.mp4").read_bytes() == b"film"
    (tmp_path / "link").symlink_to(outside)
    local_folders.remove(tmp_path / "link")
    assert not os.path.lexists(tmp_path / "link") and outside.is_dir()
    local_folders.remove(tmp_path / "never there")


def test_a_folder_of_very_many_is_removed_in_little_memory(tmp_path: Path) -> None:
    count, folder = 20_000, tmp_path / "cuts"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:032d}").touch()
    tracemalloc.start()
    try:
        local_folders.remove(folder)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not folder.exists() and peak_bytes < 10 * count  # a name alone takes more
