"""Does the plan fit the cluster? Asked before the start, because Ray would only wait.

Actors that hold every core leave none for the tasks that feed them, and the job hangs without a
word (ray-project/ray#44687). So the pools together with one task must fit, or the request is
refused with what to lower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.config import RequestError, setting

OVERSUBSCRIBED_CPUS = 0.0  # on one core the actors take turns with the tasks, reserving nothing


@dataclass(frozen=True)
class ResourcesConfig:
    """What each stage takes of the cluster."""

    watch_cpus: float = setting(1.0, "cores of one watch or cut task", unit="cores", low=0.1)
    caption_actors: int = setting(0, "workers with a caption model; 0: by the cluster", low=0)
    score_actors: int = setting(0, "workers with a score model; 0: by the cluster", low=0)
    actor_cpus: float | None = setting(
        None, "cores of one model worker; none: by the cluster", unit="cores", low=0
    )
    actor_gpus: float | None = setting(
        None,
        "GPUs of one model worker, may be a fraction; none: by the cluster",
        unit="GPUs",
        low=0,
    )
    part_s: float = setting(
        600.0, "films are watched in parts this long, at the same time", unit="s", low=1
    )
    part_min_mib: int = setting(64, "smaller files are watched whole", unit="MiB", low=0)
    attempts: int = setting(
        3, "how often work that kills its worker is begun before it is given up", low=1
    )


@dataclass(frozen=True)
class ResourcePlan:
    """What the graph asks of Ray."""

    watch_cpus: float
    caption_actors: int
    score_actors: int
    actor_cpus: float
    actor_gpus: float

    def sentence(self) -> str:
        gpus = f" and {self.actor_gpus:g} GPU" if self.actor_gpus else ""
        return (
            f"{self.caption_actors} caption and {self.score_actors} score workers of "
            f"{self.actor_cpus:g} cores{gpus} each, tasks of {self.watch_cpus:g} cores"
        )


def plan_resources(config: ResourcesConfig, cluster: Mapping[str, float]) -> ResourcePlan:
    """Fills in what the config leaves to the cluster (`ray.cluster_resources()`).

    With GPUs: one caption and one score worker share each. Without: one of each, more from eight
    cores up. Raises RequestError when pools and one task cannot run at once.
    """
    cpus, gpus = float(cluster.get("CPU", 0)), float(cluster.get("GPU", 0))
    actor_gpus = config.actor_gpus if config.actor_gpus is not None else (0.5 if gpus else 0.0)
    each = max(1, int(gpus) if actor_gpus else int(cpus // 8))
    caption_actors = config.caption_actors or each
    score_actors = config.score_actors or each
    actor_cpus = config.actor_cpus
    if actor_cpus is None:
        actor_cpus = _share_of(cpus - config.watch_cpus, caption_actors + score_actors)
    plan = ResourcePlan(config.watch_cpus, caption_actors, score_actors, actor_cpus, actor_gpus)
    _check_fits(plan, cpus, gpus)
    return plan


def _share_of(free_cpus: float, actors: int) -> float:
    """At most a core each, in quarters (Ray counts in 1/10000; a person reads quarters)."""
    quarters = int(max(free_cpus, 0.0) / actors * 4)
    return min(quarters / 4, 1.0) if quarters else OVERSUBSCRIBED_CPUS


def _check_fits(plan: ResourcePlan, cpus: float, gpus: float) -> None:
    actors = plan.caption_actors + plan.score_actors
    wanted_cpus = actors * plan.actor_cpus + plan.watch_cpus
    if wanted_cpus > cpus + 1e-6:
        raise RequestError(
            f"resources: {plan.sentence()} need {wanted_cpus:g} cores, the cluster has {cpus:g}; "
            "lower resources.caption_actors, score_actors, actor_cpus or watch_cpus"
        )
    if actors * plan.actor_gpus > gpus + 1e-6:
        raise RequestError(
            f"resources: {actors} model workers of {plan.actor_gpus:g} GPU need "
            f"{actors * plan.actor_gpus:g}, the cluster has {gpus:g}; "
            "lower resources.caption_actors, score_actors or actor_gpus"
        )
