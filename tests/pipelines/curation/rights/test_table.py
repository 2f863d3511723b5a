"""The CSV of rights: what it may say, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import RequestError
from pipelines.curation.limits import LimitsConfig
from pipelines.curation.rights.policy import merged
from pipelines.curation.rights.stated import Rights
from pipelines.curation.rights.table import RightsTable, read_table, unmatched_in_words

ID = "0123456789abcdef" * 2


def table_of(folder: Path, text: str | bytes) -> RightsTable:
    path = folder / "rights.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_table(str(path))


def stated(table: RightsTable, name: str, source_id: str = "f" * 32) -> Rights:
    return merged([row.rights for row in table.rows_for(name, source_id)], LimitsConfig())


def test_files_patterns_and_contents_are_found(tmp_path: Path) -> None:
    table = table_of(
        tmp_path,
        "\ufefffile,source_id,License,consent,note\r\n"
        "*,,CC0-1.0,,everything\r\n"
        "talks/*.mp4,,CC-BY-4.0,TRUE,\"two\nlines\"\r\n"
        "talks/anna.mp4,,,no,withdrew\r\n"
        "\r\n"
        f",{ID.upper()},ACME,contract 12,\r\n"
        "./odd[1].mp4,,CC-BY-SA-4.0,,\r\n",
    )  # fmt: skip
    assert stated(table, "b.mp4") == Rights("CC0-1.0")
    assert stated(table, "talks/b.mp4") == Rights("CC-BY-4.0", "yes")
    assert stated(table, "talks/2026/b.mp4") == Rights("CC-BY-4.0", "yes")
    assert stated(table, "talks/anna.mp4") == Rights("CC-BY-4.0", "no")
    assert stated(table, "talks/anna.mp4", ID) == Rights("ACME", "no")
    assert stated(table, "b.mp4", ID) == Rights("ACME", "contract 12")
    assert stated(table, "odd[1].mp4").license == "CC-BY-SA-4.0"
    assert stated(table, "odd1.mp4").license == "CC-BY-SA-4.0"  # as a pattern


def test_lines_about_no_file_are_named(tmp_path: Path) -> None:
    table = table_of(tmp_path, "file,license\na.mp4,X\nb.mp4,X\nc/*,X\n\x07d,X\n")
    unmatched = table.unmatched([("a.mp4", None), ("c/d.mp4", None)])
    said = unmatched_in_words(table, unmatched)
    assert "line 3 b.mp4, line 5 \ufffdd of" in said and "\n" not in said
    assert unmatched_in_words(table, []) == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("file,licence\na,b\n", "no column licence; did you mean license"),
        ("file,zzz\n", "there are file, source_id"),
        ("file,license,license\n", "is there twice"),
        ("license,consent\n", "needs a column file or source_id"),
        ("file,note\n", "a column license or consent"),
        ("file,license\na.mp4\n", "line 2: 1 cells"),
        ("file,license\na.mp4,X,Y\n", "line 2: 3 cells"),
        ("file,license\n\n,X\n", "line 3: give a file or a source_id"),
        (f"file,source_id,license\na,{ID},X\n", "one of the two"),
        ("source_id,license\n12ab,X\n", "32 hex digits"),
        (b"file,license\n\xff\xfe,X\n", "not UTF-8"),
        ('file,license\n"a,X\n', "not CSV"),
    ],
)
def test_a_wrong_table_is_a_wrong_request(tmp_path: Path, text: str | bytes, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        table_of(tmp_path, text)
    assert "\n" not in str(caught.value) and "rights.csv" in str(caught.value)


def test_a_table_that_is_not_there_is_a_wrong_request(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(RequestError, match="cannot be read"):
            read_table(str(path))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_a_wrong_request(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for content in (data, b"file,license\n" + data):
            try:
                table = table_of(Path(folder), content)
            except RequestError as error:
                assert "\n" not in str(error)
            else:
                table.rows_for("a.mp4", None)
