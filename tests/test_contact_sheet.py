"""evaluation/contact_sheet.py, and the samples that the first minute takes."""

from __future__ import annotations

import subprocess

import cv2
import numpy as np
from conftest import REPOSITORY, assert_refused, run_script, write_video

from evaluation.contact_sheet import SIDE, face_row, lines
from evaluation.report_plots import write_sheet
from face_detection import Box
from media.picture import is_image
from media.read import load_audio, probe

SAMPLES = REPOSITORY / "samples"


class Detector:
    """Finds a face at one place, in frames that are not black."""

    def detect(self, frames):
        return [[Box(20, 10, 40, 30, 1.0)] if frame.max() > 60 else [] for frame in frames]


def test_faces_are_cut_at_one_place_at_the_asked_times(tmp_path):
    frames = np.full((25, 64, 80, 3), 50, np.uint8)
    for number, frame in enumerate(frames):
        frame[10:30, 20:40] = 100 + 5 * number
    row = face_row(write_video(tmp_path / "v.mkv", frames), 0.2, Detector())
    middles = [int(face[SIDE // 2, SIDE // 2, 0]) for face in row]
    assert middles == [100, 125, 150, 175, 200]
    assert row[0][0, 0, 0] == 50  # a little around it
    assert {face.shape for face in row} == {(SIDE, SIDE, 3)}
    black = write_video(tmp_path / "b.mkv", np.zeros((10, 64, 80, 3), np.uint8))
    assert len(face_row(black, 0.2, Detector())) == 2  # no face: the picture's middle


def test_rows_that_belong_together_stay_so(tmp_path):
    rows = [[np.full((4, 4, 3), 10 * row + i, np.uint8) for i in range(5)] for row in (1, 2)]
    made = lines(rows, 3)
    values = [[int(picture[0, 0, 0]) for picture in line] for line in made]
    assert values == [[10, 11, 12], [20, 21, 22], [13, 14, 255], [23, 24, 255]]
    heights = {}
    for together in (1, 2, 4):
        write_sheet(made, str(tmp_path / "s.png"), together)
        heights[together] = cv2.imread(str(tmp_path / "s.png")).shape[:2]
    assert heights == {1: (16 + 36, 12), 2: (16 + 12, 12), 4: (16, 12)}


def test_command(tmp_path):
    face, voice, out = SAMPLES / "face.mp4", SAMPLES / "voice.mp4", tmp_path / "new" / "sheet.png"
    argv = ("-m", "evaluation.contact_sheet", "--video", face)
    result = run_script(*argv, "--truth", voice, "--out", out, "--every", 0.5)
    assert result.returncode == 0, result.stderr
    assert cv2.imread(str(out)).shape == (2 * SIDE, 6 * SIDE, 3)
    alone = run_script(*argv, "--out", tmp_path / "alone.png", "--every", 0.5)
    assert alone.returncode == 0, alone.stderr
    assert cv2.imread(str(tmp_path / "alone.png")).shape == (SIDE, 6 * SIDE, 3)
    assert_refused(run_script(*argv, "--out", tmp_path / "sheet.gif"), "does not end in .png")


def test_samples_are_small_and_say_whose_they_are():
    files = sorted(path.name for path in SAMPLES.iterdir())
    assert files == ["README.md", "face.mp4", "voice.mp4"]
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 2e6
    assert not is_image(SAMPLES / "face.mp4") and probe(SAMPLES / "face.mp4").fps == 25
    assert 4 < len(load_audio(SAMPLES / "voice.mp4")) / 16000 < 7
    text = (SAMPLES / "README.md").read_text()
    for word in ("CC BY 4.0", "GRID", "HDTF", *files[1:]):
        assert word in text


def test_make_installs_no_more_than_is_used(tmp_path):
    def planned(target):
        argv = ["make", "-n", target, f"VENV={tmp_path}/none"]
        result = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        return result.stdout

    demo, tests = planned("demo"), planned("test")
    assert "-r requirements.txt" in demo and "requirements-test" not in demo
    assert "requirements-test.txt" in tests
    assert "--no-deps -r requirements-landmarks.txt" in demo
    first, second = demo[demo.index("inference.py") :].split("contact_sheet")[:2]
    assert "--face samples/face.mp4" in first and "checkpoints/grid_s1.pth" in first
    assert "first_minute.png" in second
