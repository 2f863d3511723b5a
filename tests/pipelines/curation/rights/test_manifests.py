"""C2PA manifests inside real films and pictures: read, checked, and never a danger."""

from __future__ import annotations

import http.server
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.curation.rights import manifest_signs
from pipelines.curation.rights.manifest_signs import manifest_format
from pipelines.curation.rights.manifests import consent_of, entries_in, rights_inside
from pipelines.curation.rights.stated import stance_of
from pipelines.media import MediaError, write_video
from pipelines.sandbox.calls import SandboxConfig
from pipelines.world.scenes import Scene, render_frames
from tests.pipelines.curation.rights.signed_media import MEDIA_TYPES, sign

GENERATIVE, MINING = "c2pa.ai_generative_training", "c2pa.data_mining"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `plain.mp4`, `plain.jpg` and `plain.png`, none with a manifest."""
    folder = tmp_path_factory.mktemp("plain")
    scene = Scene("circle", "red", "left", "textured", "still", 4)
    write_video(folder / "plain.mp4", render_frames(scene, 10, 320, 180, 25.0), fps=25)
    noise = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    for suffix in (".jpg", ".png"):
        Image.fromarray(noise).save(folder / f"plain{suffix}")
    return folder


def consent_in(path: Path) -> str | None:
    rights = rights_inside(str(path), path.stat().st_size, SandboxConfig())
    assert rights.license is None
    return rights.consent


def damaged(path: Path, at: int) -> Path:
    """The same file with one byte changed."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    copy = path.with_name(f"damaged-{path.name}")
    copy.write_bytes(data)
    return copy


@pytest.mark.parametrize("suffix", MEDIA_TYPES)
def test_a_refusal_is_read_and_a_file_without_a_manifest_costs_no_child(
    plain: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = plain / f"plain{suffix}"
    signed = sign(film, tmp_path / f"signed{suffix}", {GENERATIVE: "notAllowed"})
    assert manifest_format(str(signed)) == MEDIA_TYPES[suffix]
    assert consent_in(signed) == f"no ({GENERATIVE}: notAllowed)"
    assert manifest_format(str(film)) is None
    monkeypatch.setattr("pipelines.curation.rights.manifests.run_limited", None)
    assert consent_in(film) is None


@pytest.mark.parametrize(
    ("uses", "consent"),
    [
        ({GENERATIVE: "allowed"}, f"yes ({GENERATIVE}: allowed)"),
        ({GENERATIVE: "allowed", MINING: "notAllowed"}, f"no ({MINING}: notAllowed)"),
        ({GENERATIVE: "constrained"}, f"constrained ({GENERATIVE}: constrained)"),
        ({GENERATIVE: "who knows"}, f"constrained ({GENERATIVE}: constrained)"),
        ({"c2pa.ai_inference": "allowed"}, None),  # says nothing of training
        ({"c2pa.something_else": "notAllowed"}, None),
        ({}, None),
    ],
)
def test_what_a_manifest_says_of_the_uses(
    plain: Path, tmp_path: Path, uses: dict[str, str], consent: str | None
) -> None:
    assert consent_in(sign(plain / "plain.mp4", tmp_path / "signed.mp4", uses)) == consent


def test_the_assertion_of_cawg_counts_as_well(plain: Path, tmp_path: Path) -> None:
    uses = {"cawg.data_mining": "notAllowed"}
    signed = sign(plain / "plain.jpg", tmp_path / "signed.jpg", uses, label="cawg.training-mining")
    assert consent_in(signed) == "no (cawg.data_mining: notAllowed)"


@pytest.mark.parametrize("suffix", MEDIA_TYPES)
def test_a_broken_manifest_still_refuses_and_no_longer_permits(
    plain: Path, tmp_path: Path, suffix: str
) -> None:
    """One byte of the picture changed after it was signed."""
    film = plain / f"plain{suffix}"
    for use, whole, broken in (
        ("notAllowed", f"no ({GENERATIVE}: notAllowed)", f"no ({GENERATIVE}: notAllowed)"),
        ("allowed", f"yes ({GENERATIVE}: allowed)", None),
    ):
        signed = sign(film, tmp_path / f"{use}{suffix}", {GENERATIVE: use})
        assert consent_in(signed) == whole
        assert consent_in(damaged(signed, -60)) == broken


def test_a_forged_signature_still_refuses_and_does_not_permit(plain: Path, tmp_path: Path) -> None:
    for use, consent in (("notAllowed", f"no ({GENERATIVE}: notAllowed)"), ("allowed", None)):
        signed = sign(plain / "plain.jpg", tmp_path / f"{use}.jpg", {GENERATIVE: use})
        at = signed.read_bytes().index(b"Throw-away")  # in the signer's certificate
        assert consent_in(damaged(signed, at)) == consent


def test_a_manifest_elsewhere_is_not_fetched(plain: Path, tmp_path: Path) -> None:
    """A file may name an address to read its manifest from: nobody there hears of us."""
    asked: list[str] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/manifest"
        signed = sign(plain / "plain.jpg", tmp_path / "signed.jpg", kept_at=url)
        with pytest.raises(MediaError, match="broken"):
            entries_in(str(signed), "image/jpeg")
        server.shutdown()
    assert asked == [] and consent_in(signed) is None


def test_what_a_film_was_made_of_can_refuse_and_cannot_permit(plain: Path, tmp_path: Path) -> None:
    for use, consent in (("notAllowed", f"no ({GENERATIVE}: notAllowed)"), ("allowed", None)):
        part = sign(plain / "plain.jpg", tmp_path / f"part-{use}.jpg", {GENERATIVE: use})
        whole = sign(plain / "plain.mp4", tmp_path / f"whole-{use}.mp4", made_of=[part])
        assert consent_in(whole) == consent


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bytes_of_a_stranger_are_answered_and_never_raise(
    data: st.DataObject, signed_bytes: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut short, and overwritten anywhere, also inside the manifest."""
    suffix = data.draw(st.sampled_from(sorted(MEDIA_TYPES)))
    content = bytearray(signed_bytes[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=64))
        content[at : at + len(patch)] = patch
    path = tmp_path_factory.getbasetemp() / f"hostile{suffix}"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    assert stance_of(consent_in(path)) in ("no", "unknown", "constrained", "unstated")


@pytest.fixture(scope="module")
def signed_bytes(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder, uses = tmp_path_factory.mktemp("signed"), {GENERATIVE: "notAllowed"}
    return {
        suffix: sign(plain / f"plain{suffix}", folder / f"signed{suffix}", uses).read_bytes()
        for suffix in MEDIA_TYPES
    }


def test_a_reader_that_takes_too_long_is_stopped(plain: Path, tmp_path: Path) -> None:
    """Hundreds of MiB would have to be hashed, in a tenth of a second."""
    signed = sign(plain / "plain.mp4", tmp_path / "signed.mp4", {GENERATIVE: "allowed"})
    with open(signed, "r+b") as file:
        file.seek(0, os.SEEK_END)
        size = 400 << 20
        file.write(size.to_bytes(4, "big") + b"mdat")
        file.truncate(file.tell() + size - 8)
    sandbox = SandboxConfig(wall_s=0.1, wall_s_per_mib=0)
    rights = rights_inside(str(signed), signed.stat().st_size, sandbox)
    assert rights.consent == "unknown (C2PA manifest: timed_out)"


def test_the_scan_for_a_sign_ends_whatever_the_headers_say(tmp_path: Path) -> None:
    path = tmp_path / "many.mp4"
    box = (8).to_bytes(4, "big") + b"free"
    uuid = (24).to_bytes(4, "big") + b"uuid" + manifest_signs._UUID_C2PA
    path.write_bytes(box * (manifest_signs.MAX_PARTS - 1) + uuid)
    assert manifest_format(str(path)) == "video/mp4"
    path.write_bytes(box * manifest_signs.MAX_PARTS + uuid)
    assert manifest_format(str(path)) is None  # its last box is beyond what is looked at
    for size in (0, 1, 7):
        path.write_bytes(size.to_bytes(4, "big") + b"ftyp" + b"\0" * 40)
        assert manifest_format(str(path)) is None
    endless = (1).to_bytes(4, "big") + b"moov" + b"\xff" * 8
    path.write_bytes(endless + uuid)
    assert manifest_format(str(path)) is None


@given(st.binary(max_size=200), st.sampled_from([b"", b"\0\0\0\x08ftyp", b"\xff\xd8", b"RIFF"]))
def test_any_bytes_have_a_sign_or_none(data: bytes, head: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(head + data)
        file.flush()
        assert manifest_format(file.name) in (None, *MEDIA_TYPES.values(), "video/avi")


def test_of_several_entries_the_first_by_use_is_named() -> None:
    entries = [(True, f"c2pa.{u}", "notAllowed") for u in ("data_mining", "ai_training")]
    assert consent_of(entries) == consent_of(entries[::-1]) == "no (c2pa.ai_training: notAllowed)"
