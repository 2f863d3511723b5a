"""Which latents of earlier runs a cascade lets its encode jobs take over from."""

import json

from pipelines.cascade.plan import CascadeConfig, plan_cascade
from pipelines.cascade.run import former_latents
from tests.pipelines.training.synthetic_latents import write_latents


def test_complete_latents_of_the_same_cascade_are_taken_over_from(tmp_path):
    out = tmp_path / "out"
    config = CascadeConfig(footage=str(tmp_path), out=str(out))
    nodes = {node.name: node for node in plan_cascade(config, "demo", "today's footage")}
    assert former_latents(nodes["latents-base"]) == []

    complete, other_stage = out / "latents-base-0123", out / "latents-refine-4567"
    write_latents(complete)
    write_latents(other_stage, "refine")
    (out / "latents-base-unfinished" / "_work").mkdir(parents=True)
    of_another_version = write_latents(out / "latents-base-old")
    header = json.loads((of_another_version / "latents.json").read_text())
    del header["seal"]
    (of_another_version / "latents.json").write_text(json.dumps({**header, "schema_version": 1}))
    damaged = write_latents(out / "latents-base-damaged")
    (damaged / "latents.json").write_text("{")

    expected = [str(complete), str(other_stage)]
    assert former_latents(nodes["latents-base"]) == expected
    assert former_latents(nodes["latents-refine"]) == expected


def test_an_encode_job_does_not_take_over_from_itself(tmp_path):
    config = CascadeConfig(footage=str(tmp_path), out=str(tmp_path / "out"))
    nodes = {node.name: node for node in plan_cascade(config, "demo", "footage")}
    node = nodes["latents-base"]
    write_latents(tmp_path / "out" / node.output.rpartition("/")[2])
    assert former_latents(node) == []
