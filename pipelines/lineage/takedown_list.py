"""What a takedown is asked to remove: the lines of a list, as ids of this dataset."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipelines.config import RequestError
from pipelines.lineage.manifest import CLIPS_TABLE, NOT_STATED, SOURCES_TABLE, Dataset
from pipelines.lineage.tables import Choice, Tables
from pipelines.records import source_id_of
from pipelines.storage import sha256_of_file
from pipelines.storage.single_files import is_file, local_file, read_text

ID = re.compile(r"[0-9a-f]{32}")
QUERY = re.compile(r"(licen[cs]e|consent)\s*:\s*(.+)", re.IGNORECASE)


def read_list(path: str) -> list[str]:
    """Raises RequestError when the file cannot be read or names nothing."""
    try:
        lines = read_text(path, "utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"--list {path}: cannot be read ({error})") from error
    named = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not named:
        raise RequestError(f"--list {path}: names nothing; give one id or file a line")
    return named


def resolve_targets(dataset: Dataset, named: Iterable[str]) -> Choice:
    """A line is a source id, a clip id, a file, the name of a file seen at curation, or a query
    `license: GLOB` or `consent: GLOB` (`not stated`: none was given).

    Raises RequestError on a line that is nothing in this dataset: a request that cannot be met
    must not look as if it had been.
    """
    tables = Tables()
    lines = list(dict.fromkeys(line.removeprefix("./") for line in named))
    sources: set[str] = set()
    clips: set[str] = set()
    lines = [line.lower() if ID.fullmatch(line.lower()) else line for line in lines]
    ids = [line for line in lines if ID.fullmatch(line)]
    known_sources = _known(tables, dataset, SOURCES_TABLE, "source_id", ids)
    known_clips = _known(tables, dataset, CLIPS_TABLE, "clip_id", set(ids) - known_sources)
    names = []
    for line in lines:
        if line in known_sources:
            sources.add(line)
        elif line in known_clips:
            clips.add(line)
        elif query := QUERY.fullmatch(line):
            column = "consent" if query[1].lower() == "consent" else "license"
            sources |= _with_rights(tables, dataset, column, query[2].strip(), line)
        else:
            names.append(line)
    return Choice(frozenset(sources | _named(tables, dataset, names)), frozenset(clips))


def _known(
    tables: Tables, dataset: Dataset, table: str, column: str, ids: Iterable[str]
) -> set[str]:
    wanted = sorted(ids)
    if not wanted:
        return set()
    scan = tables.scan([(dataset.uri, table)])
    rows = tables.rows(
        f"SELECT {column} AS id FROM {scan} WHERE {column} IN (SELECT unnest(?::VARCHAR[]))",
        [wanted],
    )
    return {row["id"] for row in rows}


# Names are compared by their last part first: a list of thousands is one join.
_BY_NAME = """
    SELECT DISTINCT line, source_id
    FROM (SELECT unnest($1::VARCHAR[]) AS line)
    JOIN (SELECT source_id, unnest(uris) AS uri FROM {scan})
        ON string_split(line, '/')[-1] = string_split(uri, '/')[-1]
    WHERE uri = line OR ends_with(uri, '/' || line)
"""


def _named(tables: Tables, dataset: Dataset, lines: list[str]) -> set[str]:
    """Sources by the bytes of a file, by the URI they were read from, or by file name."""
    here = {line: source_id for line in lines if (source_id := _source_at(line))}
    by_bytes = _known(tables, dataset, SOURCES_TABLE, "source_id", set(here.values()))
    found = {line: {source_id} for line, source_id in here.items() if source_id in by_bytes}
    rest = [line for line in lines if line not in found]
    if rest:
        scan = tables.scan([(dataset.uri, SOURCES_TABLE)])
        for row in tables.rows(_BY_NAME.format(scan=scan), [rest]):
            found.setdefault(row["line"], set()).add(row["source_id"])
    for line in lines:
        if line not in found:
            raise RequestError(f"--list: {line!r} is no source, clip or file of {dataset.uri}")
    return set().union(*found.values())


def _source_at(line: str) -> str | None:
    """The id of a file's bytes; None where the line is no file that can be read from here."""
    try:
        if is_file(line):
            with local_file(line) as path:
                return source_id_of(sha256_of_file(path))
    except RequestError:  # a name seen at curation may look like a URI
        pass
    return None


def _with_rights(
    tables: Tables, dataset: Dataset, column: str, pattern: str, line: str
) -> set[str]:
    scan = tables.scan([(dataset.uri, SOURCES_TABLE)])
    condition, parameters = f"lower({column}) GLOB lower($1)", [pattern]
    if pattern.lower() == NOT_STATED:
        condition, parameters = f"{column} IS NULL", []
    rows = tables.rows(f"SELECT source_id FROM {scan} WHERE {condition}", parameters)
    if not rows:
        raise RequestError(f"--list: {line!r} fits no source of {dataset.uri}")
    return {row["source_id"] for row in rows}
