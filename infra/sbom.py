"""`make sbom`: what is installed as a CycloneDX document, with the FFmpegs that wheels carry.

    python infra/sbom.py --out outputs/sbom     sbom.cdx.json and licenses.md

Package metadata knows nothing of the libraries inside a wheel. FFmpeg is named here because its
licence decides what may be done with the whole.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infra.licenses import REPOSITORY, as_markdown, entries
from pipelines.media.build import ffmpeg_build

SPEC_VERSION = "1.6"
TOOL = REPOSITORY / ".venv-sbom"
TOOL_LOCK = REPOSITORY / "infra" / "sbom.lock"
_CHECK = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()))
"""
_GPL = re.compile(r"(?P<lesser>L?)GPL version (?P<version>[23])")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sbom.py", description=__doc__)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "outputs" / "sbom")
    folder = parser.parse_args(argv).out
    try:
        table = as_markdown(entries())
    except KeyError as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 1
    document = with_ffmpeg(installed(tool()))
    check(document, tool())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "licenses.md").write_text(table)
    (folder / "sbom.cdx.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    print(f"{len(document['components'])} components: {folder}/sbom.cdx.json, {folder}/licenses.md")
    return 0


def tool() -> str:
    """The Python of an environment that holds what writes and checks the document; made once.

    Not ours: its validator brings `rfc3987-syntax`, with which `jsonschema` parses a grammar when
    it is imported. Ray imports `jsonschema` in every one of its processes, 1.7 s each.
    """
    python = str(TOOL / "bin" / "python")
    installed = TOOL / ".installed"
    wanted = TOOL_LOCK.read_text()
    if not installed.is_file() or installed.read_text() != wanted:
        venv.create(TOOL, clear=True, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(TOOL_LOCK)], check=True)
        installed.write_text(wanted)
    return python


def installed(tool: str) -> dict[str, Any]:
    """All packages of this environment, without the places they were installed from."""
    command = [tool, "-m", "cyclonedx_py", "environment", "--pyproject", "pyproject.toml"]
    command += ["--sv", SPEC_VERSION, "--short-PURLs", "--output-reproducible", "--no-validate"]
    command += [sys.executable]
    made = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(made.stdout)
    for component in document["components"]:
        places = component.get("externalReferences", [])
        component["externalReferences"] = [p for p in places if "file:" not in p["url"]]
    return document


def with_ffmpeg(document: dict[str, Any]) -> dict[str, Any]:
    """The document and a component for each FFmpeg inside a wheel."""
    build = ffmpeg_build()
    program = _program()
    inside = [
        _ffmpeg("av", build["version"], build["license"]),
        _ffmpeg("imageio-ffmpeg", program[0], program[1]),
    ]
    return {**document, "components": [*document["components"], *inside]}


def _ffmpeg(wheel: str, version: str, license_text: str) -> dict[str, Any]:
    found = _GPL.search(license_text)
    if found is None:
        raise ValueError(f"the FFmpeg of {wheel} is under {license_text!r}: look at it")
    spdx = f"{found['lesser']}GPL-{found['version']}.0-or-later"
    return {
        "type": "library",
        "bom-ref": f"ffmpeg-in-{wheel}",
        "name": "ffmpeg",
        "version": version,
        "description": f"inside the wheel of {wheel}",
        "licenses": [{"license": {"id": spdx, "acknowledgement": "declared"}}],
    }


def _program() -> tuple[str, str]:
    """(version, licence) of the program that imageio-ffmpeg carries, from its own words."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-L"]
    words = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    text = " ".join((words.stdout + words.stderr).split())
    version = re.search(r"GNU (?P<lesser>Lesser )?General Public License.*?version (\d)", text)
    said = (
        f"{'L' if version and version['lesser'] else ''}GPL version {version[2] if version else 0}"
    )
    return str(imageio_ffmpeg.get_ffmpeg_version()), said


def check(document: dict[str, Any], tool: str) -> None:
    """Raises ValueError where it breaks CycloneDX's schema."""
    text = json.dumps(document)
    ended = subprocess.run([tool, "-c", _CHECK], input=text, capture_output=True, text=True)
    if ended.returncode != 0:
        raise ValueError(f"not CycloneDX {SPEC_VERSION}: {(ended.stdout or ended.stderr).strip()}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
