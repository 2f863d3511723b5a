"""Footage under a table and a policy, and what is counted of it."""

from __future__ import annotations

from pathlib import Path

from pipelines.curation.collapse import Footage
from pipelines.curation.found import Found
from pipelines.curation.limits import LimitsConfig
from pipelines.curation.rights.counts import license_rows
from pipelines.curation.rights.footage import admitted, rights_line, under_table
from pipelines.curation.rights.table import read_table
from pipelines.lineage.manifest import count_clips
from pipelines.lineage.tombstones import Tombstones
from pipelines.records import Clip, Source, to_table
from tests.pipelines.curation.clips_of import a_clip

A, B, C, D = ("a" * 32, "b" * 32, "c" * 32, "d" * 32)
POLICY = LimitsConfig(refused_licenses=("*-NC-*",))


def footage(source_id: str, license_text: str | None = None, **more: str | None) -> Footage:
    source = Source(source_id, [f"{source_id[0]}.mp4"], 5, license=license_text, **more)  # type: ignore[arg-type]
    return Footage(source, (f"/films/{source_id[0]}.mp4",))


def test_the_table_stands_above_what_lies_beside_and_below_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"file,source_id,license,consent\na.mp4,,X,yes\n,{B},Y,yes\n")
    table = read_table(str(tmp_path / "t.csv"))
    pairs = [
        (Found("a.mp4", "/a.mp4"), footage(A, "CC0-1.0").source),
        (Found("b.mp4", "/b.mp4"), footage(B, "CC-BY-NC-4.0", consent="no").source),
        (Found("c.mp4", "/c.mp4"), footage(C, "CC0-1.0").source),
    ]
    found = [(s.license, s.consent) for _, s in under_table(pairs, table, POLICY)]
    assert found == [("X", "yes"), ("CC-BY-NC-4.0", "no"), ("CC0-1.0", None)]


def test_what_may_not_be_watched_fails_with_its_reason_and_other_failures_stand() -> None:
    sources = [
        footage(A, "CC0-1.0"),
        footage(B, "CC-BY-NC-4.0"),
        footage(C, "CC-BY-NC-4.0"),
        footage(D, "CC-BY-NC-4.0", status="failed", reason="empty"),
    ]
    found = list(admitted(sources, POLICY, Tombstones(frozenset([C, D]))))
    assert [f.source.reason for f in found] == [None, "licence_refused", "taken_down", "empty"]
    assert [f.source.status for f in found] == ["ok", "failed", "failed", "failed"]
    assert [f.path for f in found] == [f.path for f in sources]
    assert rights_line(found) == (
        "rights: licences CC-BY-NC-4.0 2, CC0-1.0 1; consent not stated 3; refused 1; "
        "taken down before 1"
    )
    assert rights_line([footage(A), footage(B)]) == ""


def test_licences_are_counted_by_what_is_kept() -> None:
    clips = [
        a_clip(1, license="CC0-1.0", consent="yes"),
        a_clip(2, license="CC0-1.0"),
        a_clip(3),
        a_clip(4, license="X").dropped("quality", "flat"),
    ]
    counts = count_clips(to_table(Clip, clips))
    assert counts["licenses"] == {"CC0-1.0": 2, "not stated": 1}
    assert counts["consent"] == {"not stated": 2, "yes": 1}
    sources = [footage(A, "CC0-1.0").source, footage(B, "X").source]
    refused = [f.source for f in admitted([footage(C, "CC-BY-NC-4.0")], POLICY, Tombstones())]
    rows = license_rows([*sources, *refused], clips)
    assert [(r.license, r.sources, r.kept_clips, r.kept_s, r.refused) for r in rows] == [
        ("CC0-1.0", 1, 2, 4.0, 0),
        ("not stated", 0, 1, 2.0, 0),
        ("CC-BY-NC-4.0", 0, 0, 0, 1),
        ("X", 1, 0, 0, 0),
    ]
