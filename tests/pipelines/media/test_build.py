from __future__ import annotations

import json
import re
import subprocess
import sys

from pipelines.media.build import ffmpeg_build


def test_it_is_the_build_that_pyav_carries() -> None:
    """PyAV's own report, of another process, says the same."""
    build = ffmpeg_build()
    report = subprocess.run(
        [sys.executable, "-m", "av", "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"(lib\w+)\s+(\d+)\. *(\d+)\. *(\d+)", report)
    assert {name: ".".join(numbers) for name, *numbers in found} == build["libraries"]
    assert build["license"] in report
    assert build["version"][:1].isdigit()


def test_it_names_no_folder_and_is_json() -> None:
    build = ffmpeg_build()
    text = json.dumps(build)
    assert json.loads(text) == build == ffmpeg_build()
    assert "/" not in text
    assert re.fullmatch(r"[0-9a-f]{32}", build["configuration_sha256"])
