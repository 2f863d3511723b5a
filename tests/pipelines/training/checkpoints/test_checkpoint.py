import json
import shutil

import pytest

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.training.checkpoints.checkpoint import (
    Checkpoint,
    CheckpointHeader,
    latest_checkpoint,
    open_checkpoint,
)
from pipelines.training.checkpoints.publishing import publish_checkpoint, thin_old_checkpoints

FILES = {
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"weights" * 100,
    "trainer.json": b'{"place": {}}',
    "lineage.parquet": b"rows",
}


def header(step: int, stage: str = "base"):
    def make(files, digest):
        return CheckpointHeader(
            schema_version=1,
            digest=digest,
            stage=stage,
            step=step,
            phase="joint",
            finished=False,
            loss=0.5,
            samples_seen=3,
            parent=None,
            base=None,
            latents={"uri": "l", "digest": "0"},
            dataset={"uri": "d", "digest": "1"},
            encoders={},
            size_px=(24, 16),
            preset="demo",
            model={},
            diffusion={},
            phases=[],
            config={},
            config_hash="2",
            identity="3",
            files=files,
        )

    return make


def fill(folder):
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def publish(folder, step: int, stage: str = "base") -> Checkpoint:
    return publish_checkpoint(Store.open(str(folder)), step, fill, header(step, stage))


def test_the_newest_is_found_from_the_folder_and_from_itself(tmp_path):
    publish(tmp_path, 5)
    made = publish(tmp_path, 10)
    assert made.name == "step-00000010"
    assert open_checkpoint(str(tmp_path), "base", "--base").header == made.header
    assert open_checkpoint(str(tmp_path / "step-00000005"), "base", "--base").header.step == 5
    assert json.loads((tmp_path / "latest.json").read_text())["checkpoint"] == "step-00000010"


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_flipped_byte_in_any_file_is_refused_by_name(tmp_path, name):
    made = publish(tmp_path, 5)
    path = tmp_path / made.name / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with (
        pytest.raises(RequestError, match=f"{name}: damaged"),
        open_checkpoint(str(tmp_path), "base", "--base").local_directory(),
    ):
        pass


def test_a_missing_file_is_refused_by_name(tmp_path):
    made = publish(tmp_path, 5)
    (tmp_path / made.name / "trainer.json").unlink()
    with (
        pytest.raises(RequestError, match=r"trainer\.json: missing"),
        open_checkpoint(str(tmp_path), "base", "--base").local_directory(),
    ):
        pass


def test_a_changed_list_of_files_is_refused(tmp_path):
    made = publish(tmp_path, 5)
    path = tmp_path / made.name / "checkpoint.json"
    plain = json.loads(path.read_text())
    plain["files"]["trainer.json"] = "0" * 64
    path.write_text(json.dumps(plain))
    with pytest.raises(RequestError, match="damaged"):
        open_checkpoint(str(tmp_path), "base", "--base")


def test_the_wrong_stage_and_an_empty_folder_are_refused(tmp_path):
    publish(tmp_path / "refine", 5, "refine")
    with pytest.raises(RequestError, match=r"^--base .*checkpoint of the refine stage"):
        open_checkpoint(str(tmp_path / "refine"), "base", "--base")
    with pytest.raises(RequestError, match="no checkpoint there"):
        open_checkpoint(str(tmp_path / "nothing"), "base", "--base")


def test_an_interrupted_save_leaves_the_one_before(tmp_path):
    publish(tmp_path, 5)

    def disk_full(folder):
        fill(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        publish_checkpoint(Store.open(str(tmp_path)), 10, disk_full, header(10))
    assert latest_checkpoint(Store(str(tmp_path))).header.step == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest.json", "step-00000005"]


def test_a_checkpoint_that_never_counted_is_replaced(tmp_path):
    """Killed between the rename and latest.json: the next save of that step takes its place."""
    publish(tmp_path, 5)
    shutil.copytree(tmp_path / "step-00000005", tmp_path / "step-00000010")
    assert latest_checkpoint(Store(str(tmp_path))).header.step == 5
    made = publish(tmp_path, 10)
    assert latest_checkpoint(Store(str(tmp_path))).header == made.header


def test_one_that_never_counted_is_not_taken_for_the_newest(tmp_path):
    """Its run was killed; the next one saves at other steps, and thins what is old."""
    publish(tmp_path, 5)
    shutil.copytree(tmp_path / "step-00000005", tmp_path / "step-00000010")
    made = publish(tmp_path, 7)
    thin_old_checkpoints(Store(str(tmp_path)), keep=1)
    assert not (tmp_path / "step-00000010").exists()
    made.check()
    assert latest_checkpoint(Store(str(tmp_path))).header == made.header


def test_one_that_latest_names_is_never_taken_away_for_itself(tmp_path, monkeypatch):
    """Writing latest.json only seemed to fail: the step is saved again, and that is killed."""
    publish(tmp_path, 5)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.training.checkpoints.publishing.os.rename", killed)
    publish(tmp_path, 5)
    latest_checkpoint(Store(str(tmp_path))).check()


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_in_the_name_of_the_newest_is_refused(tmp_path, bit):
    publish(tmp_path, 5)
    publish(tmp_path, 7)
    data = bytearray((tmp_path / "latest.json").read_bytes())
    data[data.index(b"step-00000007") + 12] ^= 1 << bit
    (tmp_path / "latest.json").write_bytes(data)
    with pytest.raises(RequestError, match=r"latest\.json: not readable"):
        latest_checkpoint(Store(str(tmp_path)))


def test_thinned_checkpoints_keep_their_lineage_and_say_so(tmp_path):
    for step in (5, 10, 15):
        publish(tmp_path, step)
    thin_old_checkpoints(Store(str(tmp_path)), keep=2)
    left = {p.name for p in (tmp_path / "step-00000005").rglob("*") if p.is_file()}
    assert left == {"checkpoint.json", "lineage.parquet"}
    assert (tmp_path / "step-00000010" / "trainer.json").is_file()
    thinned = open_checkpoint(str(tmp_path / "step-00000005"), "base", "--base")
    with pytest.raises(RequestError, match="missing"), thinned.local_directory():
        pass


def test_an_object_store_gives_the_same_files(tmp_path):
    """fsspec's memory filesystem stands for an object store."""
    made = publish_checkpoint(Store.open("memory://checkpoints"), 5, fill, header(5))
    found = open_checkpoint("memory://checkpoints", "base", "--base")
    assert found.header == made.header
    with found.local_directory() as folder:
        assert (folder / "trainer.json").read_bytes() == FILES["trainer.json"]
    assert made.header.digest == publish(tmp_path, 5).header.digest
