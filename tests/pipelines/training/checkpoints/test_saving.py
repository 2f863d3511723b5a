"""A checkpoint whose place cannot be written: said, tried again, and nothing lost."""

import json

import pytest

from pipelines.storage import Store
from pipelines.training.checkpoints.checkpoint import LATEST_FILE, latest_checkpoint
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import Heard, base_request, train_here


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return write_latents(tmp_path_factory.mktemp("latents") / "base")


def digest(folder, step):
    return json.loads((folder / f"step-{step:08d}" / "checkpoint.json").read_text())["digest"]


class Obstructed(Heard):
    """After some steps latest.json cannot be written, until the trainer has complained so often."""

    def __init__(self, folder, *, after, complaints):
        super().__init__()
        self.latest, self.after, self.complaints = folder / LATEST_FILE, after, complaints
        self.hidden = folder / "hidden.json"

    def post(self, step, figures, *, at_once=False):
        super().post(step, figures, at_once=at_once)
        if step == self.after and not self.hidden.exists():
            if self.latest.exists():
                self.latest.rename(self.hidden)
            self.latest.mkdir()
            (self.latest / "something").touch()

    def say(self, line):
        super().say(line)
        if len(self.lines) == self.complaints:
            self.clear()

    def clear(self):
        (self.latest / "something").unlink()
        self.latest.rmdir()
        if self.hidden.exists():
            self.hidden.rename(self.latest)


def test_training_waits_says_so_and_goes_on_to_the_same_bytes(latents, tmp_path):
    straight, obstructed = tmp_path / "straight", tmp_path / "obstructed"
    train_here(base_request(latents, straight, 9))
    heard = Obstructed(obstructed, after=7, complaints=2)
    assert train_here(base_request(latents, obstructed, 9), heard) == []
    assert len(heard.lines) == 2
    for line in heard.lines:
        assert line.startswith("the checkpoint of step 8 could not be written (")
        assert line.endswith(f"last good checkpoint: {obstructed}/step-00000004")
    for step in (4, 8, 9):
        assert digest(obstructed, step) == digest(straight, step)


def test_without_patience_it_ends_with_the_last_good_one_and_goes_on_later(latents, tmp_path):
    straight, obstructed = tmp_path / "straight", tmp_path / "obstructed"
    train_here(base_request(latents, straight, 9))
    heard = Obstructed(obstructed, after=7, complaints=99)
    request = base_request(latents, obstructed, 9, save_patience_s=0.0)
    (reason,) = train_here(request, heard)
    assert reason.startswith("step 8: the checkpoint of step 8 could not be written (")
    assert f"last good checkpoint: {obstructed}/step-00000004" in reason
    heard.clear()
    assert latest_checkpoint(Store(str(obstructed))).header.step == 4
    train_here(base_request(latents, obstructed, 9))
    assert digest(obstructed, 9) == digest(straight, 9)


def test_a_mistake_in_the_code_is_not_taken_for_a_full_disk(latents, tmp_path, monkeypatch):
    from pipelines.training.checkpoints.ledger import Ledger

    def broken(*_):
        raise KeyError("a bug")

    monkeypatch.setattr(Ledger, "write", broken)
    with pytest.raises(KeyError):
        train_here(base_request(latents, tmp_path, 4))
    assert latest_checkpoint(Store(str(tmp_path))) is None
