"""`make sbom`: complete, valid, with a licence for every locked package and both FFmpegs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra import licenses, sbom
from tests.conftest import run_job


def test_every_locked_package_has_a_licence_or_a_note() -> None:
    found = licenses.entries()
    assert len(found) > 200
    assert all(entry.license for entry in found)
    names = {entry.name for entry in found}
    assert set(licenses.NOTES) | set(licenses.COPYLEFT) <= names


def test_what_does_not_say_its_licence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(licenses.NOTES, "huey")
    with pytest.raises(KeyError, match=r"huey .* does not say its licence"):
        licenses.entries()
    monkeypatch.undo()
    monkeypatch.delitem(licenses.COPYLEFT, "psycopg")
    with pytest.raises(KeyError, match=r"psycopg .* is under LGPL"):
        licenses.entries()


def test_the_document_names_all_that_is_locked(tmp_path: Path) -> None:
    ended = run_job("infra/sbom.py", "--out", tmp_path)
    assert ended.code == 0, ended.err
    text = (tmp_path / "sbom.cdx.json").read_text()
    document = json.loads(text)
    sbom.check(document, sbom.tool())
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    named = {plain(c["name"]) for c in document["components"]}
    locked = {plain(name) for name, _ in licenses.locked(licenses.LOCK.read_text())}
    assert locked <= named
    films = {c["bom-ref"]: c for c in document["components"] if c["name"] == "ffmpeg"}
    assert set(films) == {"ffmpeg-in-av", "ffmpeg-in-imageio-ffmpeg"}
    assert all("GPL" in c["licenses"][0]["license"]["id"] for c in films.values())
    assert "file:" not in text and str(licenses.REPOSITORY) not in text
    assert len((tmp_path / "licenses.md").read_text().splitlines()) == len(locked) + 2


def test_what_is_not_cyclonedx_is_refused() -> None:
    with pytest.raises(ValueError, match="not CycloneDX"):
        sbom.check(
            {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{}]}, sbom.tool()
        )


def plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
