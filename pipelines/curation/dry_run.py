"""`--dry-run`: everything is checked and said, nothing is written."""

from __future__ import annotations

import os
from collections import Counter

from pipelines.cluster import address_of, connect
from pipelines.curation.config import CurateConfig
from pipelines.curation.resources import plan_resources


def plan_in_words(config: CurateConfig) -> str:
    """What would be done, over several lines. Raises RequestError for a wrong request."""
    from pipelines.curation.prepared import prepare

    prepared = prepare(config)
    files = prepared.files
    problems = Counter(f.problem for f in files if f.problem)
    kinds = ", ".join(f"{reason} {n}" for reason, n in sorted(problems.items()))
    size_gib = sum(f.size_bytes for f in files) / 2**30
    plan = plan_resources(config.resources, cluster_resources(config))
    lines = [
        f"would curate {config.footage} into {prepared.store.uri}:",
        f"  files     {len(files)}, {size_gib:.2f} GiB"
        + (f"; without a picture: {kinds}" if kinds else ""),
        f"  captions  {config.captions.backend}",
        f"  scores    {config.clip_score.model}",
        f"  workers   {plan.sentence()}",
    ]
    return "\n".join(lines)


def cluster_resources(config: CurateConfig) -> dict[str, float]:
    """Of the cluster that would be joined; of this machine when a local Ray would be started."""
    if address_of(config.cluster) is None:
        return {"CPU": float(config.cluster.num_cpus or os.cpu_count() or 1)}
    import ray

    with connect(config.cluster):
        return dict(ray.cluster_resources())
