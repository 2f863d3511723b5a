"""Licence and consent from a CSV: what a person knows of the footage, above what lies beside it.

    file,license,consent,note
    interviews/*.mp4,CC-BY-4.0,yes,contract 12
    interviews/anna.mp4,,no,withdrew in May

`file` is relative to the footage and may hold `*`, `?` and `[...]` (a `*` reaches into folders);
`source_id` names a content instead. Of several lines for one file the last that states something
counts, but a no in any of them stands.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property

from pipelines.config import RequestError
from pipelines.curation.rights.stated import Rights, as_text
from pipelines.storage import Store

COLUMNS = ("file", "source_id", "license", "consent", "note")
_SOURCE_ID = re.compile(r"[0-9a-f]{32}")
_YES, _NO = ("yes", "true", "1", "y"), ("no", "false", "0", "n")


@dataclass(frozen=True)
class TableRow:
    """A line of the table: which files, or which content, and what is stated of them."""

    line: int
    file: str
    source_id: str
    rights: Rights

    @property
    def name(self) -> str:
        return self.file or self.source_id

    @property
    def is_pattern(self) -> bool:
        return any(character in self.file for character in "*?[")


@dataclass(frozen=True)
class RightsTable:
    """Every line, in order. Looked up by a file's name and its content's id."""

    uri: str = ""
    rows: tuple[TableRow, ...] = ()

    def rows_for(self, name: str, source_id: str | None) -> list[TableRow]:
        """The lines about a file, the last of the table first."""
        numbers = set(self._by_name.get(name, ())) | set(self._by_name.get(source_id or "", ()))
        numbers |= {number for pattern, number in self._patterns if pattern.match(name)}
        return [self.rows[number] for number in sorted(numbers, reverse=True)]

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for number, row in enumerate(self.rows):
            found.setdefault(row.name, []).append(number)
        return found

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], int]]:
        rows = enumerate(self.rows)
        return [(re.compile(translate(row.file)), n) for n, row in rows if row.is_pattern]

    def unmatched(self, names: Iterable[tuple[str, str | None]]) -> list[TableRow]:
        """Lines that are about none of the (file, source_id) pairs."""
        used = {row.line for name, source_id in names for row in self.rows_for(name, source_id)}
        return [row for row in self.rows if row.line not in used]


def read_table(uri: str) -> RightsTable:
    """Raises RequestError, naming the line, for a table that cannot be read as one."""
    folder, _, name = uri.rpartition("/")
    try:
        text = Store.open(folder or ("/" if uri.startswith("/") else ".")).read_bytes(name)
        rows = list(csv.reader(io.StringIO(text.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError:
        raise RequestError(f"--rights {uri}: not UTF-8 text; save the table as UTF-8") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RequestError(f"--rights {uri}: cannot be read ({reason}); give a CSV file") from error
    except csv.Error as error:
        raise RequestError(f"--rights {uri}: not CSV ({error})") from error
    if not rows:
        raise RequestError(f"--rights {uri}: is empty; the first line names columns: {_known()}")
    columns = _columns(rows[0], uri)
    return RightsTable(uri, tuple(_rows(rows[1:], columns, uri)))


def unmatched_in_words(table: RightsTable, rows: Sequence[TableRow]) -> str:
    """One line for a person; empty where every line is about a file."""
    if not rows:
        return ""
    shown = ", ".join(f"line {row.line} {as_text(row.name)}" for row in rows[:3])
    more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"rights: WARNING: no file is named by {shown}{more} of {table.uri}"


def _columns(header: Sequence[str], uri: str) -> list[str]:
    columns = [name.strip().lower() for name in header]
    for name in columns:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are {_known()}"
            raise RequestError(
                f"--rights {uri}: no column {as_text(name) or 'without name'}; {meant}"
            )
        if columns.count(name) > 1:
            raise RequestError(f"--rights {uri}: column {name} is there twice; keep one")
    if not {"file", "source_id"} & set(columns) or not {"license", "consent"} & set(columns):
        raise RequestError(
            f"--rights {uri}: needs a column file or source_id, and a column license or consent"
        )
    return columns


def _rows(rows: Sequence[Sequence[str]], columns: Sequence[str], uri: str) -> Iterator[TableRow]:
    for line, cells in enumerate(rows, start=2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"--rights {uri}: line {line}"
        if len(cells) != len(columns):
            raise RequestError(f"{where}: {len(cells)} cells, the first line has {len(columns)}")
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        file, source_id = row.get("file", ""), row.get("source_id", "").lower()
        if bool(file) == bool(source_id):
            raise RequestError(f"{where}: give a file or a source_id, one of the two")
        if source_id and not _SOURCE_ID.fullmatch(source_id):
            raise RequestError(f"{where}: a source_id is 32 hex digits, not {as_text(source_id)!r}")
        rights = Rights(as_text(row.get("license")), _consent(row.get("consent")))
        yield TableRow(line, file.removeprefix("./"), source_id, rights)


def _consent(cell: str | None) -> str | None:
    word = (cell or "").lower()
    return "yes" if word in _YES else "no" if word in _NO else as_text(cell)


def _known() -> str:
    return ", ".join(COLUMNS)
