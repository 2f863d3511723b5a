"""Activation checkpointing: the same gradients, less kept."""

import pytest
import torch

from model.checkpointing import MODES
from model.training_memory import kept_bytes
from tests.model.sameness import outputs_and_gradients
from tests.model.small_networks import base_inputs, video_unet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_changes_no_gradient(mode, dropout):
    unet = video_unet(temporal_dropout=dropout).train()
    inputs = base_inputs(1, 3, 8, 8)
    torch.manual_seed(0)
    plain = outputs_and_gradients(unet, inputs)
    unet.set_activation_checkpointing(mode)
    torch.manual_seed(0)
    checkpointed = outputs_and_gradients(unet, inputs)
    torch.testing.assert_close(checkpointed, plain, rtol=0, atol=0)


def test_each_mode_keeps_less_than_the_one_before():
    unet, inputs = video_unet(), base_inputs(1, 4, 8, 16)
    kept = {}
    for mode in MODES:
        unet.set_activation_checkpointing(mode)
        kept[mode] = kept_bytes(lambda: unet(**inputs))
    unet.set_activation_checkpointing(True)
    assert kept_bytes(lambda: unet(**inputs)) == kept["full"] < 0.3 * kept["none"]
    assert kept["full"] < kept["selective"] < 0.6 * kept["none"]


@pytest.mark.parametrize(("mode", "again"), [("selective", False), ("full", True)])
def test_selective_runs_no_convolution_twice(mode, again):
    unet, inputs = video_unet(), base_inputs(1, 2, 8, 8)
    unet.set_activation_checkpointing(mode)
    output = unet(**inputs)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        output.sum().backward()
    kernels = {event.key for event in profile.key_averages()}
    assert {"aten::convolution_backward", "aten::native_group_norm"} <= kernels
    assert ("aten::mkldnn_convolution" in kernels) == again


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="known: none, selective, full"):
        video_unet().set_activation_checkpointing("sometimes")
