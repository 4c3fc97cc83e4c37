"""face_detection/choice.py: a record serves its own video and settings, and nothing else."""

from __future__ import annotations

import json

import pytest

from face_detection.base import Box
from face_detection.choice import SUFFIX, Detections, cached_detections

FOUND = Detections(30, [12], {i: [Box(i, 1.5, 50, 60, 0.75)] if i % 3 else [] for i in range(30)})


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"pixels")
    return path


def ask(video, count=30, **settings):
    """(detections, whether the detector ran)."""
    ran = []
    found = cached_detections(
        str(video), {"detector": "x", "crop": (0, -1)} | settings, count,
        lambda: ran.append(1) or FOUND,
    )  # fmt: skip
    return found, bool(ran)


def test_the_second_time_nothing_is_searched(video):
    assert ask(video) == (FOUND, True)
    assert ask(video) == (FOUND, False)


def test_other_settings_or_content_search_again(video):
    ask(video)
    assert ask(video, det_every=3)[1]
    video.write_bytes(b"other pixels")
    assert ask(video, det_every=3)[1]


def test_a_record_of_the_first_frames_serves_no_more(video):
    ask(video, count=30)  # 30 asked for and 30 found: the video may go on
    assert ask(video, count=31)[1]
    assert not ask(video, count=99)[1]  # 31 asked for, 30 found: that is all there is


def test_fewer_frames_are_cut_from_the_record(video):
    ask(video)
    found, ran = ask(video, count=10)
    assert not ran and found.count == 10 and max(found.boxes) == 9 and found.cuts == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}', '{"key": null, "boxes": 3}'])
def test_a_damaged_record_is_made_anew(video, content):
    ask(video)
    (video.parent / ("clip.mp4" + SUFFIX)).write_text(content)
    assert ask(video)[1]
    assert not ask(video)[1]


def test_hostile_numbers_are_made_anew(video):
    ask(video)
    path = video.parent / ("clip.mp4" + SUFFIX)
    record = json.loads(path.read_text())
    record["boxes"]["0"] = [["a", 1, 2, 3, 4]]
    path.write_text(json.dumps(record))
    assert ask(video)[1]


def test_a_folder_that_cannot_be_written_to_costs_a_line(video, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("face_detection.choice.write_json", refuse)
    assert ask(video) == (FOUND, True)
    assert "faces not cached" in capsys.readouterr().err
