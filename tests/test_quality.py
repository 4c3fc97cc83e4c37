"""evaluation/quality.py: two videos in step, closed forms, pairs that do not fit, resuming. Metrics
with networks: test_metrics.py.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from conftest import smooth_frames, write_video
from input_cases import video

from errors import InputError
from evaluation.metrics import METRICS, Batch, Temporal
from evaluation.quality import QualityMeter, find_pairs
from evaluation.score_table import ScoreTable
from face_detection.boxes import KnownBoxes
from media.read import iter_frames, probe


def meter(detector, shorter=0) -> QualityMeter:
    """With the metrics that need no weights."""
    return QualityMeter(detector, [kind("cpu") for kind in METRICS if not kind.weights], shorter)


def table(folder, judge) -> ScoreTable:
    return ScoreTable(folder, "quality", tuple(judge.columns), judge.settings)


def test_a_constant_offset(tmp_path, boxes):
    frames = smooth_frames()
    truth = write_video(tmp_path / "t.mkv", frames)
    made = write_video(tmp_path / "g.mkv", frames + 5)
    row = meter(boxes).score(truth, made)
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
    row = meter(boxes).score(
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
    temporal, values = Temporal(), []
    temporal.start(None, 25)
    for first in range(0, 7, 2):  # across batches
        part = slice(first, first + 2)
        batch = Batch(frames[part], made[part], [(5, 5, 35, 35)] * len(frames[part]), first)
        values += temporal(batch)["temporal"]
    assert values == [6.0] * 6
    boxless = Batch(frames, made, [None] * 3 + [(0, 0, 9, 9)] + [None] * 3, 0)
    temporal.start(None, 25)
    assert temporal(boxless)["temporal"] == [6.0]


def test_frames_are_paired_by_time(tmp_path, boxes):
    """A phone drops a frame; the generator, which goes by time, loses nothing of it."""
    frames = smooth_frames(24)
    times = [40 * i for i in range(24) if i != 2]
    truth = str(video(tmp_path / "t.mkv", np.delete(frames, 2, axis=0), codec="ffv1", fmt="bgr0",
                      times=times))  # fmt: skip
    rate = probe(truth).fps
    shown = [frame for _, frame in iter_frames(truth, rate)]
    row = meter(boxes).score(truth, write_video(tmp_path / "g.mkv", shown, fps=rate))
    assert row["psnr"] == row["psnr_mouth"] == 100 and row["l1_mouth"] == row["temporal"] == 0
    assert row["ssim"] == pytest.approx(1, abs=1e-6) and row["frames"] == len(shown)
    # the same at half the rate
    half = write_video(tmp_path / "h.mkv", [f for _, f in iter_frames(truth, 12.5)], fps=12.5)
    assert meter(boxes).score(truth, half)["psnr"] == 100


def test_a_size_that_changes_on_the_way(tmp_path, boxes):
    frames = smooth_frames(6)
    truth = write_video(tmp_path / "t.mkv", frames)
    small = [cv2.resize(frame, (48, 48)) for frame in smooth_frames(12)]
    changing = tmp_path / "c.ts"
    changing.write_bytes(b"".join(
        video(tmp_path / f"{n}.ts", part).read_bytes() for n, part in enumerate((frames, small[6:]))
    ))  # fmt: skip
    judge = meter(boxes)
    pairs = [("c", (str(changing), str(changing))), ("t", (truth, truth))]
    summary = table(tmp_path / "out", judge).run(pairs, judge.score)
    assert summary["videos"] == 2 and summary["scores"]["psnr"]["mean"] == 100


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
    pairs = [(key, (truth, path)) for key, path in made.items()]
    judge = meter(boxes)
    summary = table(tmp_path / "out", judge).run(pairs, judge.score)
    assert summary["videos"] == 1
    reasons = {skipped["video"]: skipped["reason"] for skipped in summary["skipped"]}
    assert "has 4 frames, the true one more" in reasons["shorter"]
    assert "goes on after the true one's 6 frames" in reasons["longer"]
    assert "64x64" in reasons["small"] and "48x48" in reasons["small"]
    assert "goes on after the true one's 5 frames" in reasons["slow"]  # 6 frames last longer
    assert "not found" in reasons["gone"]
    lenient = meter(boxes, 2)
    row = lenient.score(truth, made["shorter"])
    assert row["frames"] == 4 and row["l1_mouth"] == pytest.approx(5)
    assert lenient.settings != judge.settings
    with pytest.raises(InputError, match="has 4 frames"):
        meter(boxes, 1).score(truth, made["shorter"])


def test_scored_pairs_are_not_scored_again(tmp_path, boxes):
    truth = write_video(tmp_path / "t.mkv", smooth_frames())
    made = write_video(tmp_path / "g.mkv", smooth_frames() + 5)
    judge, pairs = meter(boxes), [("a", (truth, made))]
    first = table(tmp_path / "out", judge).run(pairs, judge.score)
    assert table(tmp_path / "out", judge).run(pairs, None) == first


def test_without_a_face_the_mouth_has_no_number(tmp_path):
    (tmp_path / "none.json").write_text("[null]")
    truth = write_video(tmp_path / "t.mkv", smooth_frames())
    row = meter(KnownBoxes(tmp_path / "none.json")).score(truth, truth)
    assert row["faces"] == 0 and row["psnr_mouth"] is None and row["psnr"] == 100


def test_pairs_of_folders(tmp_path):
    for name in ("real/x/1.mp4", "real/x/2.mp4", "real/3.mkv", "made/x/1.mkv", "made/y/3.mkv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    real, made = str(tmp_path / "real"), str(tmp_path / "made")
    first, second = find_pairs(real, made)
    assert first == ("x/1", (f"{real}/x/1.mp4", f"{made}/x/1.mkv"))
    assert second == ("y/3", (f"{real}/y/3", f"{made}/y/3.mkv"))  # real/3.mkv is another clip
    assert find_pairs(*first[1]) == [("1", first[1])]
    with pytest.raises(InputError, match="--real is not"):
        find_pairs(first[1][0], made)
    (tmp_path / "made/x/1.mp4").write_bytes(b"x")  # which of the two is meant?
    with pytest.raises(InputError, match="--generated: .*1.mkv and .*1.mp4 have one name"):
        find_pairs(real, made)
