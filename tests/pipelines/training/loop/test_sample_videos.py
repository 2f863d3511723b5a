"""Sample videos and curves, as they lie in MLflow after a training."""

import dataclasses
import json
from pathlib import Path

import mlflow
import pytest

from model.encoders import load_vae
from pipelines.config import TrackingConfig
from pipelines.lineage.tracking import Tracker
from pipelines.media import probe, read_clip_frames
from pipelines.training.latents.clip_encoder import weights_digest
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import Heard, base_request, refine_request, train_here


@pytest.fixture(scope="module")
def vae_digest():
    return weights_digest(load_vae("embedded").vae)


def latents_of_the_embedded_vae(folder, stage, size, vae_digest):
    write_latents(folder, stage, lengths=[1, 17, 33, 33] * 6, size=size)
    header = json.loads((folder / "latents.json").read_text())
    header["encoders"]["vae"]["digest"] = vae_digest
    del header["seal"]
    (folder / "latents.json").write_text(json.dumps(header))
    return folder


def recorded(request, folder):
    """Trains with a record in sqlite; the client, the run, what was said, and the videos."""
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
    tracker = Tracker.open(tracking)
    heard = Heard()
    with tracker.run("train_base", "a run", {}, {}) as run:
        job = dataclasses.replace(request.job, tracking=tracking, run_id=run.run_id)
        train_here(dataclasses.replace(request, job=job), heard)
    client = mlflow.MlflowClient(tracking_uri=tracker.uri)
    names = [one.path for one in client.list_artifacts(run.run_id, "samples")]
    videos = {name: client.download_artifacts(run.run_id, name) for name in names}
    return client, run.run_id, heard, videos


def test_videos_of_the_same_held_out_clips_are_in_the_run(tmp_path, vae_digest):
    latents = latents_of_the_embedded_vae(tmp_path / "latents", "base", (8, 12), vae_digest)
    request = base_request(latents, tmp_path / "c", 4, sample_every=2, validate_every=2)
    client, run_id, heard, videos = recorded(request, tmp_path)
    assert heard.lines == []
    assert len(videos) == 4  # two clips, at steps 2 and 4
    assert {name[len("samples/step-00000002-") :] for name in videos if "-00000002-" in name} == {
        name[len("samples/step-00000004-") :] for name in videos if "-00000004-" in name
    }
    for path in videos.values():
        info = probe(path)
        # The clip and its sample side by side: 12 x 4 and 8 x 4 pixels each.
        assert (info.width_px, info.height_px, info.codec) == (96, 32, "h264")
    run = client.get_run(run_id)
    assert {
        "loss", "validation_loss", "validation_loss_ema", "gradient_norm", "steps_per_s",
        "clips_per_s", "tflop_per_s", "share_of_peak", "data_wait_share", "memory_peak_gib",
        "learning_rate_spatial", "learning_rate_temporal", "samples_seen",
    } <= set(run.data.metrics)  # fmt: skip
    assert any(name.startswith("loss_") for name in run.data.metrics)
    environment = json.loads(
        Path(client.download_artifacts(run_id, "environment.json")).read_text()
    )
    assert environment["packages"]["torch"] and environment["device"] == "cpu"
    assert environment["peak_flop_per_s"] > 0


def test_videos_do_not_change_what_is_learned(tmp_path, vae_digest):
    latents = latents_of_the_embedded_vae(tmp_path / "latents", "base", (8, 12), vae_digest)
    train_here(base_request(latents, tmp_path / "without", 3))
    train_here(base_request(latents, tmp_path / "with", 3, sample_every=1, validate_every=1))
    ends = [
        json.loads((tmp_path / name / "latest.json").read_text())["digest"]
        for name in ("without", "with")
    ]
    assert ends[0] == ends[1]


def test_the_refinement_shows_clip_enlarged_and_refined(tmp_path, vae_digest):
    base = latents_of_the_embedded_vae(tmp_path / "latents-base", "base", (4, 6), vae_digest)
    train_here(base_request(base, tmp_path / "base", 2))
    latents = latents_of_the_embedded_vae(tmp_path / "latents", "refine", (8, 12), vae_digest)
    request = refine_request(latents, tmp_path / "c", tmp_path / "base", 2, 0)
    loop = dataclasses.replace(request.job.loop, sample_every=2, sample_clips=1)
    job = dataclasses.replace(request.job, loop=loop)
    _, _, heard, videos = recorded(dataclasses.replace(request, job=job), tmp_path)
    assert heard.lines == []
    (path,) = videos.values()
    info = probe(path)
    assert (info.width_px, info.height_px) == (144, 32)
    data = Path(path).read_bytes()
    frames_FHWC = read_clip_frames(data, fps=info.fps, width_px=144, height_px=32, max_frames=4)
    clip, enlarged = frames_FHWC[0][:, :48].astype(float), frames_FHWC[0][:, 48:96].astype(float)
    # The same picture, the second without its detail.
    assert clip.std() > 1.3 * enlarged.std()
    assert abs(clip.mean() - enlarged.mean()) < 12


def test_another_autoencoder_is_said_and_costs_only_the_pictures(tmp_path):
    latents = write_latents(tmp_path / "latents")
    heard = Heard()
    assert train_here(base_request(latents, tmp_path / "c", 2, sample_every=1), heard) == []
    assert heard.posts[-1]["step"] == 2
    assert [line.split(":")[0] for line in heard.lines] == [
        "no sample videos at step 1", "no sample videos at step 2",
    ]  # fmt: skip
