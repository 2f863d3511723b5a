from __future__ import annotations

import pytest

from pipelines.config import RequestError
from pipelines.curation.resources import ResourcesConfig, plan_resources


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_pools_and_one_task_always_fit_by_default(cpus: int, gpus: int) -> None:
    plan = plan_resources(ResourcesConfig(), {"CPU": cpus, "GPU": gpus})
    actors = plan.caption_actors + plan.score_actors
    assert plan.caption_actors >= 1 and plan.score_actors >= 1
    assert actors * plan.actor_cpus + plan.watch_cpus <= cpus
    assert actors * plan.actor_gpus <= gpus
    assert (plan.actor_gpus > 0) == (gpus > 0)


@pytest.mark.parametrize(
    ("config", "cluster", "words"),
    [
        (ResourcesConfig(caption_actors=2, actor_cpus=1.0), {"CPU": 2}, "lower resources.caption"),
        (ResourcesConfig(watch_cpus=4.0), {"CPU": 2}, "the cluster has 2"),
        (ResourcesConfig(actor_gpus=1.0), {"CPU": 8, "GPU": 1}, "actor_gpus"),
        (ResourcesConfig(actor_gpus=0.5), {"CPU": 8}, "the cluster has 0"),
    ],
)
def test_a_plan_that_cannot_run_is_refused_with_what_to_lower(
    config: ResourcesConfig, cluster: dict[str, float], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        plan_resources(config, cluster)
