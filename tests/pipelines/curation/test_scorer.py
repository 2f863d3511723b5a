from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipelines.config import RequestError
from pipelines.curation.aesthetic import check_head, load_head
from pipelines.curation.clip_score import ClipScoreConfig
from pipelines.curation.scorer import ClipScorer
from pipelines.media import jpeg_bytes
from pipelines.world.scenes import Scene, render_frames


def frames_of(scene: Scene, count: int = 3) -> list[bytes]:
    return [jpeg_bytes(f, quality=95) for f in render_frames(scene, count, 128, 72, 8.0)]


SCENES = [
    Scene("circle", "red", "left", "textured", "still", 1),
    Scene("star", "blue", "right", "gradient", "still", 2),
    Scene("ring", "yellow", "up", "noise", "still", 3),
]


@pytest.fixture(scope="module")
def scorer() -> ClipScorer:
    return ClipScorer(ClipScoreConfig(frames_per_batch=4))


def test_the_right_words_score_higher(scorer: ClipScorer) -> None:
    clips = [frames_of(s) for s in SCENES]
    right = scorer.score(clips, [s.still_caption for s in SCENES])
    wrong = scorer.score(clips, [s.still_caption for s in SCENES[1:] + SCENES[:1]])
    for a, b in zip(right, wrong, strict=True):
        assert a.clip_score is not None and b.clip_score is not None
        assert a.clip_score > b.clip_score + 0.1
        assert a.embedding == b.embedding


def test_scores_do_not_depend_on_what_shares_a_batch(scorer: ClipScorer) -> None:
    clips = [frames_of(s, count) for s, count in zip(SCENES, (1, 3, 4), strict=True)]
    texts = [s.still_caption for s in SCENES]
    together = scorer.score(clips, texts)
    alone = [scorer.score([c], [t])[0] for c, t in zip(clips, texts, strict=True)]
    assert alone == together


def test_one_picture_has_no_consistency_and_a_cut_has_little(scorer: ClipScorer) -> None:
    text = SCENES[0].still_caption
    still, steady, broken = scorer.score(
        [
            frames_of(SCENES[0], 1),
            frames_of(SCENES[0]),
            frames_of(SCENES[0], 1) + frames_of(SCENES[1], 1),
        ],
        [text] * 3,
    )
    assert still.temporal_consistency is None
    assert steady.temporal_consistency is not None and broken.temporal_consistency is not None
    assert steady.temporal_consistency > broken.temporal_consistency + 0.1


def test_an_aesthetic_head_is_used_when_its_weights_are_given(tmp_path: Path) -> None:
    path = str(tmp_path / "head.safetensors")
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(4, 128)), rng.normal(size=(1, 4))
    tensors = {
        "layers.0.weight": first.astype(np.float32),
        "layers.0.bias": np.zeros(4, np.float32),
        "layers.10.weight": last.astype(np.float32),
        "layers.10.bias": np.full(1, 5.0, np.float32),
    }
    save_file(tensors, path)
    head = load_head(path)
    assert head is not None
    unit = np.eye(128)[7]
    assert head.score(unit) == pytest.approx(float((last @ (first @ unit))[0] + 5), abs=1e-4)
    scorer = ClipScorer(ClipScoreConfig(aesthetic_weights=path))
    (scores,) = scorer.score([frames_of(SCENES[0])], ["a red circle"])
    assert scores.aesthetic is not None
    with pytest.raises(RequestError, match="width 128"):
        head.score(np.zeros(64))


def test_a_head_of_one_layer_is_read_as_it_was_published(tmp_path: Path) -> None:
    path = str(tmp_path / "linear.safetensors")
    save_file({"weight": np.ones((1, 128), np.float32), "bias": np.full(1, 2.0, np.float32)}, path)
    head = load_head(path)
    assert head is not None and head.score(np.eye(128)[3]) == pytest.approx(3.0)
    check_head(path, "embedded")
    check_head("", "embedded")
    with pytest.raises(RequestError, match=r"width 128, clip_score\.model gives 768"):
        check_head(path, "ViT-L-14:openai")


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"weight": np.ones((1, 8), np.float32), "bias": np.ones(3, np.float32)}, "one value"),
        ({"weight": np.ones(8, np.float32)}, "one value"),
        ({"fc.bias": np.ones(1, np.float32)}, "one value"),
        ({"weight": np.full((1, 8), np.nan, np.float32)}, "not finite"),
    ],
)
def test_a_head_that_makes_no_sense_is_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], words: str
) -> None:
    path = str(tmp_path / "head.safetensors")
    save_file(tensors, path)
    with pytest.raises(RequestError, match=words):
        load_head(path)


def test_a_pickle_is_refused_with_the_way_out() -> None:
    with pytest.raises(RequestError, match="save_file"):
        load_head("sac+logos+ava1-l14-linearMSE.pth")


def test_the_subject_is_measured_and_nudity_only_when_asked(scorer: ClipScorer) -> None:
    (scores,) = scorer.score([frames_of(SCENES[0])], ["a red circle"])
    assert scores.subject_area is not None and 0.02 < scores.subject_area < 0.12
    assert scores.nsfw is None


def test_no_weights_no_score_and_wrong_weights_are_refused(tmp_path: Path) -> None:
    assert load_head("") is None
    with pytest.raises(RequestError, match=r"no\.safetensors"):
        load_head(str(tmp_path / "no.safetensors"))
    path = str(tmp_path / "wide.safetensors")
    save_file({"fc.weight": np.zeros((2, 8), np.float32)}, path)
    with pytest.raises(RequestError, match="end in one value"):
        load_head(path)
