"""Asked to stop, or about to lose its machine, training saves the step it is at, and no other."""

import json
import os
import signal

import pytest

from pipelines.job import EXIT_FAILED
from pipelines.storage import Store
from pipelines.training.checkpoints.checkpoint import latest_checkpoint
from pipelines.training.loop.stopping import asked_to_stop, missing_resources
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import Heard, base_request, train_here


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return write_latents(tmp_path_factory.mktemp("latents") / "base")


def digest(folder, step):
    return json.loads((folder / f"step-{step:08d}" / "checkpoint.json").read_text())["digest"]


def weights(folder, step):
    return {
        part: (folder / f"step-{step:08d}" / part).read_bytes()
        for part in (
            "unet/diffusion_pytorch_model.safetensors",
            "ema/diffusion_pytorch_model.safetensors",
            "trainer.safetensors",
        )
    }


def test_a_stop_saves_the_step_and_the_same_command_ends_with_the_same_weights(latents, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train_here(base_request(latents, straight, 9))
    heard = Heard(stop_after=5)
    assert train_here(base_request(latents, stopped, 9), heard) == []
    left = latest_checkpoint(Store(str(stopped)))
    # Heard before step 6, which is trained and saved; 4 was saved in its turn.
    assert left.header.step == 6 and not left.header.finished
    assert (stopped / "step-00000004").is_dir()
    request = base_request(latents, stopped, 9)
    assert request.first_step == 6
    train_here(request)
    assert weights(stopped, 9) == weights(straight, 9)
    losses = [latest_checkpoint(Store(str(f))).header.loss for f in (straight, stopped)]
    assert losses[0] == losses[1]


def test_a_notice_of_preemption_saves_and_ends(latents, tmp_path):
    heard = Heard()
    train_here(base_request(latents, tmp_path, 9), heard, is_preempted=lambda: True)
    assert latest_checkpoint(Store(str(tmp_path))).header.step == 1
    assert heard.lines == ["a machine is about to go: saving step 1"]
    assert heard.failures == []


def test_a_stop_at_the_last_step_is_the_end_as_ever(latents, tmp_path):
    train_here(base_request(latents, tmp_path, 4), Heard(stop_after=3))
    left = latest_checkpoint(Store(str(tmp_path)))
    assert left.header.step == 4 and left.header.finished


def test_the_first_sigterm_asks_and_the_second_is_the_old_one(capsys):
    def old(*_):
        raise SystemExit(EXIT_FAILED)

    before = signal.signal(signal.SIGTERM, old)
    try:
        with asked_to_stop() as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.wait(5)
            assert "saving the step" in capsys.readouterr().err
            with pytest.raises(SystemExit):
                os.kill(os.getpid(), signal.SIGTERM)
                signal.sigtimedwait([], 1)
        assert signal.getsignal(signal.SIGTERM) is old
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_lacks_is_named(latents, tmp_path):
    job = base_request(latents, tmp_path, 4, workers=3, gpus=1.0).job
    assert missing_resources(job, {"CPU": 3, "GPU": 3}) == ""
    assert missing_resources(job, {"CPU": 2}) == "they need 3 CPU, the cluster has 2"
    assert missing_resources(job, {"CPU": 8, "GPU": 2}) == "they need 3 GPU, the cluster has 2"
