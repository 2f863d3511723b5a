"""Does the plan fit the cluster? Asked before the start, because Ray would only wait.

Actors that hold every core leave none for the tasks that feed them, and the job hangs without a
word (ray-project/ray#44687). Ray chooses the node of each actor, so it is not enough that cores are
left in sum: two actors of half a core, on two nodes of one core, leave no room for a task. Wherever
they go, one node must keep room for a task, or the request is refused with what to lower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.config import RequestError, setting

OVERSUBSCRIBED_CPUS = 0.0  # on one core the actors take turns with the tasks, reserving nothing
TOLERANCE_CPUS = 1e-6


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
    footage_copies_mib: int = setting(
        16384,
        "disk of each machine for copies of footage from an object store; more only for the films "
        "that are in use at the same time",
        unit="MiB",
        low=0,
    )
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


Node = Mapping[str, float]


def plan_resources(config: ResourcesConfig, nodes: Sequence[Node]) -> ResourcePlan:
    """Fills in what the config leaves to the cluster; `nodes` say what each has (CPU, GPU).

    With GPUs: one caption and one score worker share each. Without: one of each, more from eight
    cores up. What it chooses also holds when any one of several nodes is lost. Raises RequestError
    when pools and one task may not be able to run at once.
    """
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    actor_gpus = config.actor_gpus if config.actor_gpus is not None else (0.5 if gpus else 0.0)
    each = max(1, int(gpus) if actor_gpus else int(cpus // 8))
    plan = ResourcePlan(
        config.watch_cpus,
        config.caption_actors or each,
        config.score_actors or each,
        config.actor_cpus if config.actor_cpus is not None else OVERSUBSCRIBED_CPUS,
        actor_gpus,
    )
    if config.actor_cpus is None:
        plan = _with_most_cpus(plan, nodes)
    _check_fits(plan, cpus, gpus)
    _check_room_for_tasks(plan, nodes)
    return plan


def _with_most_cpus(plan: ResourcePlan, nodes: Sequence[Node]) -> ResourcePlan:
    """At most a core an actor, in quarters (Ray counts in 1/10000; a person reads quarters)."""
    left = [[*nodes[:i], *nodes[i + 1 :]] for i in range(len(nodes))] if len(nodes) > 1 else []
    for quarters in range(4, 0, -1):
        more = replace(plan, actor_cpus=quarters / 4)
        if all(_always_room_for_a_task(more, some) for some in [nodes, *left]):
            return more
    return plan


def _always_room_for_a_task(plan: ResourcePlan, nodes: Sequence[Node]) -> bool:
    """Whether the actors are too few to leave no node with room, wherever Ray puts them."""
    actors = plan.caption_actors + plan.score_actors
    return sum(_actors_to_fill(plan, node) for node in nodes) > actors


def _actors_to_fill(plan: ResourcePlan, node: Node) -> float:
    """How many actors it takes until the node has no room for a task; 0: it never has."""
    free_cpus = node.get("CPU", 0.0) - plan.watch_cpus
    if free_cpus < -TOLERANCE_CPUS:
        return 0
    if not plan.actor_cpus or (plan.actor_gpus and not node.get("GPU")):
        return math.inf
    return math.floor(free_cpus / plan.actor_cpus + TOLERANCE_CPUS) + 1


def _check_fits(plan: ResourcePlan, cpus: float, gpus: float) -> None:
    actors = plan.caption_actors + plan.score_actors
    wanted_cpus = actors * plan.actor_cpus + plan.watch_cpus
    if wanted_cpus > cpus + TOLERANCE_CPUS:
        raise RequestError(
            f"resources: {plan.sentence()} need {wanted_cpus:g} cores, the cluster has {cpus:g}; "
            "lower resources.caption_actors, score_actors, actor_cpus or watch_cpus"
        )
    if actors * plan.actor_gpus > gpus + TOLERANCE_CPUS:
        raise RequestError(
            f"resources: {actors} model workers of {plan.actor_gpus:g} GPU need "
            f"{actors * plan.actor_gpus:g}, the cluster has {gpus:g}; "
            "lower resources.caption_actors, score_actors or actor_gpus"
        )


def _check_room_for_tasks(plan: ResourcePlan, nodes: Sequence[Node]) -> None:
    if not _always_room_for_a_task(plan, nodes):
        most = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
        raise RequestError(
            f"resources: {plan.sentence()} can leave no node with room for a task (the largest of "
            f"{len(nodes)} has {most:g} cores), and the job would wait for ever; "
            "lower resources.actor_cpus, caption_actors, score_actors or watch_cpus"
        )
