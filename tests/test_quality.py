"""evaluation/quality.py: closed forms, pairs that do not fit, resuming. Its networks:
test_quality_networks.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import smooth_frames, write_video

from errors import InputError
from evaluation.quality import QualityMeter, find_pairs, score_pairs
from evaluation.quality_metrics import Batch, Temporal
from evaluation.score_table import ScoreTable
from face_detection.boxes import KnownBoxes


def test_a_constant_offset(tmp_path, boxes):
    frames = smooth_frames()
    truth = write_video(tmp_path / "t.mkv", frames)
    made = write_video(tmp_path / "g.mkv", frames + 5)
    row = QualityMeter(boxes, device="cpu").score(truth, made)
    expected = 20 * np.log10(255 / 5)
    assert row["psnr"] == pytest.approx(expected, abs=1e-3)
    assert row["psnr_mouth"] == pytest.approx(expected, abs=1e-3)
    assert row["l1_mouth"] == pytest.approx(5)
    assert row["temporal"] == 0
    assert 0.9 < row["ssim"] < 1
    assert row["frames"] == row["faces"] == 6
    assert row["av_length_difference"] is None  # no sound


def test_only_the_mouth_counts_for_the_mouth(tmp_path, boxes):
    frames = smooth_frames()
    made = frames.copy()
    made[:, :32] += 20  # the box's lower half begins at row 32
    row = QualityMeter(boxes, device="cpu").score(
        write_video(tmp_path / "t.mkv", frames), write_video(tmp_path / "g.mkv", made)
    )
    assert row["psnr_mouth"] == 100 and row["l1_mouth"] == 0
    assert row["ssim_mouth"] == pytest.approx(1, abs=1e-6)
    assert row["psnr"] == pytest.approx(20 * np.log10(255 / 20) + 10 * np.log10(2), abs=1e-3)


def test_an_alternating_offset_is_flicker():
    frames = np.full((7, 40, 40, 3), 100, np.uint8)
    made = frames.copy()
    made[::2] += 3
    made[1::2] -= 3
    temporal = Temporal()
    values = []
    for first in range(0, 7, 2):  # across batches
        part = slice(first, first + 2)
        batch = Batch(frames[part], made[part], [(5, 5, 35, 35)] * len(frames[part]), first)
        values += temporal(batch)["temporal"]
    assert values == [6.0] * 6
    boxless = Batch(frames, made, [None] * 3 + [(0, 0, 9, 9)] + [None] * 3, 0)
    assert Temporal()(boxless)["temporal"] == [6.0]


def test_pairs_that_do_not_fit_are_skipped(tmp_path, boxes):
    frames = smooth_frames(6)
    truth = write_video(tmp_path / "t.mkv", frames)
    made = {
        "equal": write_video(tmp_path / "equal.mkv", frames + 5),
        "shorter": write_video(tmp_path / "shorter.mkv", frames[:4] + 5),
        "longer": write_video(tmp_path / "longer.mkv", np.concatenate([frames, frames])),
        "small": write_video(tmp_path / "small.mkv", smooth_frames(6, 48)),
        "slow": write_video(tmp_path / "slow.mkv", frames, fps=20),
        "gone": str(tmp_path / "gone.mkv"),
    }
    pairs = [(key, truth, path) for key, path in made.items()]
    meter = QualityMeter(boxes, device="cpu")
    table = ScoreTable(tmp_path / "out", "quality", meter.columns, meter.settings)
    summary = score_pairs(pairs, meter, table)
    assert summary["videos"] == 1
    reasons = {skipped["video"]: skipped["reason"] for skipped in summary["skipped"]}
    assert "has 4 frames, the true one more" in reasons["shorter"]
    assert "goes on after the true one's 6 frames" in reasons["longer"]
    assert "64x64" in reasons["small"] and "48x48" in reasons["small"]
    assert reasons["slow"] == "the true video has 25 fps, the generated one 20"
    assert "not found" in reasons["gone"]
    lenient = QualityMeter(boxes, shorter=2, device="cpu")
    row = lenient.score(truth, made["shorter"])
    assert row["frames"] == 4 and row["l1_mouth"] == pytest.approx(5)
    assert lenient.settings != meter.settings
    with pytest.raises(InputError, match="has 4 frames"):
        QualityMeter(boxes, shorter=1, device="cpu").score(truth, made["shorter"])


def test_scored_pairs_are_not_scored_again(tmp_path, boxes, monkeypatch):
    truth = write_video(tmp_path / "t.mkv", smooth_frames())
    made = write_video(tmp_path / "g.mkv", smooth_frames() + 5)
    meter = QualityMeter(boxes, device="cpu")

    def table():
        return ScoreTable(tmp_path / "out", "quality", meter.columns, meter.settings)

    first = score_pairs([("a", truth, made)], meter, table())
    monkeypatch.setattr(meter, "score", None)
    assert score_pairs([("a", truth, made)], meter, table()) == first


def test_without_a_face_the_mouth_has_no_number(tmp_path):
    (tmp_path / "none.json").write_text("[null]")
    truth = write_video(tmp_path / "t.mkv", smooth_frames())
    row = QualityMeter(KnownBoxes(tmp_path / "none.json"), device="cpu").score(truth, truth)
    assert row["faces"] == 0 and row["psnr_mouth"] is None and row["psnr"] == 100


def test_pairs_of_folders(tmp_path):
    for name in ("real/x/1.mp4", "real/x/2.mp4", "real/3.mkv", "made/x/1.mkv", "made/y/3.mkv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    real, made = str(tmp_path / "real"), str(tmp_path / "made")
    first, second = find_pairs(real, made)
    assert first == ("x/1", f"{real}/x/1.mp4", f"{made}/x/1.mkv")
    assert second == ("y/3", f"{real}/y/3", f"{made}/y/3.mkv")  # real/3.mkv is another clip
    assert find_pairs(first[1], first[2]) == [("1", first[1], first[2])]
    with pytest.raises(InputError, match="--real is not"):
        find_pairs(first[1], made)
