from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import RequestError
from pipelines.curation.resources import ResourcePlan, ResourcesConfig, plan_resources

Nodes = list[dict[str, float]]
CLUSTERS = st.lists(
    st.fixed_dictionaries({"CPU": st.integers(0, 64), "GPU": st.integers(0, 8)}),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("gpus", [0, 1, 8])
def test_pools_and_one_task_always_fit_by_default(cpus: int, gpus: int) -> None:
    plan = plan_resources(ResourcesConfig(), [{"CPU": cpus, "GPU": gpus}])
    actors = plan.caption_actors + plan.score_actors
    assert plan.caption_actors >= 1 and plan.score_actors >= 1
    assert actors * plan.actor_cpus + plan.watch_cpus <= cpus
    assert actors * plan.actor_gpus <= gpus
    assert (plan.actor_gpus > 0) == (gpus > 0)


@given(CLUSTERS, st.randoms(use_true_random=False))
def test_wherever_the_actors_go_a_node_keeps_room_for_a_task(nodes: Nodes, random: object) -> None:
    try:
        plan = plan_resources(ResourcesConfig(), nodes)
    except RequestError:
        assert not any(node["CPU"] >= 1 for node in nodes), "there was room"
        return
    free = placed(plan, nodes, random)
    assert any(cpus >= plan.watch_cpus for cpus in free)


def placed(plan: ResourcePlan, nodes: Nodes, random: object) -> list[float]:
    """Cores left on each node when every actor goes to any node that can take it."""
    cpus, gpus = ([float(node[kind]) for node in nodes] for kind in ("CPU", "GPU"))
    for _ in range(plan.caption_actors + plan.score_actors):
        fits = [
            i
            for i in range(len(nodes))
            if cpus[i] >= plan.actor_cpus and gpus[i] >= plan.actor_gpus
        ]
        if fits:
            chosen = random.choice(fits)  # type: ignore[attr-defined]
            cpus[chosen] -= plan.actor_cpus
            gpus[chosen] -= plan.actor_gpus
    return cpus


@pytest.mark.parametrize(
    ("nodes", "actor_cpus"),
    [
        ([{"CPU": 2}], 0.5),
        ([{"CPU": 1}, {"CPU": 1}], 0.0),  # half a core on each would leave none a whole one
        ([{"CPU": 2}, {"CPU": 2}], 0.5),  # also when one of them is lost
        ([{"CPU": 0}, {"CPU": 16}, {"CPU": 16}], 1.0),
    ],
)
def test_the_cores_of_an_actor_by_the_nodes(nodes: Nodes, actor_cpus: float) -> None:
    assert plan_resources(ResourcesConfig(), nodes).actor_cpus == actor_cpus


@pytest.mark.parametrize(
    ("config", "nodes", "words"),
    [
        (
            ResourcesConfig(caption_actors=2, actor_cpus=1.0),
            [{"CPU": 2}],
            "lower resources.caption",
        ),
        (ResourcesConfig(watch_cpus=4.0), [{"CPU": 2}], "the cluster has 2"),
        (ResourcesConfig(actor_gpus=1.0), [{"CPU": 8, "GPU": 1}], "actor_gpus"),
        (ResourcesConfig(actor_gpus=0.5), [{"CPU": 8}], "the cluster has 0"),
        (ResourcesConfig(actor_cpus=0.5), [{"CPU": 1}, {"CPU": 1}], "no node with room"),
        (ResourcesConfig(watch_cpus=2.0), [{"CPU": 1}, {"CPU": 1}], "largest of 2 has 1 cores"),
    ],
)
def test_a_plan_that_cannot_run_is_refused_with_what_to_lower(
    config: ResourcesConfig, nodes: Nodes, words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        plan_resources(config, nodes)
