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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infra.licenses import REPOSITORY, as_markdown, entries
from pipelines.media.build import ffmpeg_build

SPEC_VERSION = "1.6"
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
    document = with_ffmpeg(installed())
    check(document)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "licenses.md").write_text(table)
    (folder / "sbom.cdx.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    print(f"{len(document['components'])} components: {folder}/sbom.cdx.json, {folder}/licenses.md")
    return 0


def installed() -> dict[str, Any]:
    """All packages of this environment, without the places they were installed from."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", "pyproject.toml"]
    command += ["--sv", SPEC_VERSION, "--short-PURLs", "--output-reproducible", sys.executable]
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


def check(document: dict[str, Any]) -> None:
    """Raises ValueError where it breaks CycloneDX's schema."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    if wrong is not None:
        raise ValueError(f"not CycloneDX {SPEC_VERSION}: {wrong}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
