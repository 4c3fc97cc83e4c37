"""lipsync/preview.py: the frames of the whole video, a few of them, on one sheet."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from conftest import GOLDEN

from errors import InputError
from lipsync.engine import LipSync
from lipsync.preview import write_preview
from media.read import iter_frames

FACE = str(GOLDEN / "inference" / "face25.mkv")
SPEECH = str(GOLDEN / "inference" / "speech.wav")
BOX = {"box": (30, 170, 40, 150)}


@pytest.fixture(scope="module")
def lipsync(weights):
    return LipSync(weights, "cpu", backend="torch")


@pytest.fixture
def generated(lipsync, monkeypatch):
    """How many faces went through the network."""
    counts, generate = [], lipsync.backend.generate

    def counted(faces, mels, references):
        counts.append(len(mels))
        return generate(faces, mels, references)

    monkeypatch.setattr(lipsync.backend, "generate", counted)
    return counts


@pytest.mark.parametrize("pad", ["loop", "bounce", "trim"])
def test_the_sheet_holds_frames_of_the_video(lipsync, generated, tmp_path, pad):
    whole = str(tmp_path / "whole.mkv")
    summary = lipsync.run(FACE, SPEECH, whole, pad=pad, **BOX)
    generated.clear()
    path = write_preview(lipsync, FACE, SPEECH, str(tmp_path / "a b.c.mp4"), 5, BOX | {"pad": pad})
    assert path == str(tmp_path / "a b.c.png") and sum(generated) == 5
    assert sorted(os.listdir(tmp_path)) == ["a b.c.png", "whole.mkv"]
    frames = [frame.astype(int) for _, frame in iter_frames(whole)]
    height, width = frames[0].shape[:2]
    sheet = cv2.imread(path)
    assert sheet.shape == (2 * height, 3 * width, 3)
    for number, index in enumerate(np.linspace(0, summary.frames - 1, 5).round().astype(int)):
        top, left = number // 3 * height, number % 3 * width
        shown = sheet[top : top + height, left : left + width]
        assert np.abs(shown - frames[index]).max() <= 1
    assert (sheet[height:, 2 * width :] == 0).all()


def test_more_frames_than_there_are(lipsync, generated, tmp_path):
    write_preview(lipsync, FACE, SPEECH, str(tmp_path / "o.mp4"), 1000, BOX | {"pad": "trim"})
    assert sum(generated) == len(list(iter_frames(FACE)))


def test_large_frames_are_scaled_down(lipsync, tmp_path):
    picture = cv2.resize(next(iter_frames(FACE))[1], (2500, 1000))
    cv2.imwrite(str(tmp_path / "large.png"), picture)
    options = {"box": (100, 900, 200, 900)}
    path = write_preview(lipsync, str(tmp_path / "large.png"), SPEECH,
                         str(tmp_path / "new" / "o.mp4"), 2, options)  # fmt: skip
    assert cv2.imread(path).shape == (384, 1920, 3)


def test_what_cannot_be_used_leaves_nothing(lipsync, tmp_path):
    def refused(words, face=FACE, audio=SPEECH, out="o.mp4", options=BOX):
        with pytest.raises(InputError, match=words):
            write_preview(lipsync, str(face), str(audio), str(tmp_path / out), 3, options)

    refused("face not found", face="nothing.mp4")
    refused("audio not found", audio="nothing.wav")
    refused("does not lie inside", options={"box": (30, 1700, 40, 150)})
    (tmp_path / "o.png").write_bytes(b"x")
    refused("cannot write", out="o.png/o.mp4")
    face = tmp_path / "me.png"
    cv2.imwrite(str(face), next(iter_frames(FACE))[1])
    before = face.read_bytes()
    refused("would replace", face=face, out="me.mp4")
    assert face.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["me.png", "o.png"]
