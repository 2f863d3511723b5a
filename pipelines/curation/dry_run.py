"""`--dry-run`: everything is checked and said, nothing is written."""

from __future__ import annotations

import os
from collections import Counter

from pipelines.cluster.connection import address_of, connect, resources_of_nodes
from pipelines.curation.config import CurateConfig
from pipelines.curation.ingest import stated_of
from pipelines.curation.prepared import Prepared, prepare
from pipelines.curation.resources import plan_resources
from pipelines.curation.rights.footage import rights_in_words
from pipelines.curation.rights.policy import merged, refuses
from pipelines.curation.rights.table import TableRow, unmatched_in_words


def plan_in_words(config: CurateConfig) -> str:
    """What would be done, over several lines. Raises RequestError for a wrong request."""
    prepared = prepare(config)
    files = prepared.files
    problems = Counter(f.problem for f in files if f.problem)
    kinds = ", ".join(f"{reason} {n}" for reason, n in sorted(problems.items()))
    size_gib = sum(f.size_bytes for f in files) / 2**30
    plan = plan_resources(config.resources, nodes_of(config))
    unmatched = unmatched_in_words(prepared.rights, unmatched_files(prepared))
    lines = [
        f"would curate {config.footage} into {prepared.store.uri}:",
        f"  files     {len(files)}, {size_gib:.2f} GiB"
        + (f"; without a picture: {kinds}" if kinds else ""),
        *(f"  rights    {line}" for line in rights_lines(prepared)),
        f"  captions  {config.captions.backend}",
        f"  scores    {config.clip_score.model}",
        f"  workers   {plan.sentence()}",
    ]
    return "\n".join([*lines, *([unmatched] if unmatched else [])])


def rights_lines(prepared: Prepared) -> list[str]:
    """Files per licence and consent, and what would not be watched: copies are not known yet."""
    config, table = prepared.config, prepared.rights
    media = [f for f in prepared.files if f.problem is None]
    stated = []
    for found in media:
        told = [row.rights for row in table.rows_for(found.uri, None)]
        beside = stated_of(found, config.limits, config.watch.sandbox)
        stated.append(merged([*told, beside], config.limits))
    refused = sum(refuses(rights, config.limits) for rights in stated)
    by_id = sum(bool(row.source_id) for row in table.rows)
    lines = [rights_in_words(Counter(stated), refused)] if media else []
    if by_id:
        lines.append(f"{by_id} lines of {table.uri} name a source_id: not counted before reading")
    if taken := prepared.taken_down.rows:
        clips = prepared.taken_down.counts()["clips"]
        lines.append(f"taken down before: {len(taken) - clips} sources, {clips} clips, if here")
    return lines


def unmatched_files(prepared: Prepared) -> list[TableRow]:
    """Lines of the table that name a file which is not there."""
    rows = prepared.rights.unmatched((f.uri, None) for f in prepared.files)
    return [row for row in rows if row.file]


def nodes_of(config: CurateConfig) -> list[dict[str, float]]:
    """Of the cluster that would be joined; this machine when a local Ray would be started."""
    if address_of(config.cluster) is None:
        return [{"CPU": float(config.cluster.num_cpus or os.cpu_count() or 1)}]
    with connect(config.cluster):
        return resources_of_nodes()
