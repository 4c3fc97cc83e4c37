"""evaluation/score_table.py: statistics, resuming, changed files and settings."""

from __future__ import annotations

import csv
import json
import os

import pytest

from errors import InputError
from evaluation.score_table import ScoreTable

SETTINGS = {"protocol": "lrs", "vshift": 15}


def open_table(folder, **settings) -> ScoreTable:
    return ScoreTable(folder, "lse", ("distance", "confidence"), SETTINGS | settings)


def test_statistics_and_skipped(tmp_path):
    table = open_table(tmp_path)
    table.keep("b", [], [{"distance": 3.0, "confidence": 1.0}, {"distance": 7.0}])
    table.keep("a", [], [{"distance": 2.0}])
    table.keep("c", [], [], reason="no face")
    summary = table.finish()
    assert summary["scores"]["distance"] == {
        "mean": 4.0,
        "median": 3.0,
        "standard_error": pytest.approx((7 / 3) ** 0.5),  # variance 7 of three, over three
        "n": 3,
    }
    assert summary["scores"]["confidence"]["standard_error"] is None  # one number has no spread
    assert summary["videos"] == 2 and summary["rows"] == 3
    assert summary["skipped"] == [{"video": "c", "reason": "no face"}]
    assert json.loads((tmp_path / "lse.json").read_text()) == summary
    with open(tmp_path / "lse.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == ["a", "b", "b"]
    assert rows[0] == {"video": "a", "distance": "2.0", "confidence": ""}


def test_no_number_is_null_and_not_finite_does_not_count(tmp_path):
    table = open_table(tmp_path)
    table.keep("a", [], [{"distance": float("inf")}])
    assert table.finish()["scores"] == {"distance": None, "confidence": None}


def test_resumes_and_forgets_changed_files(tmp_path):
    video = tmp_path / "a.mp4"
    video.write_bytes(b"one")
    table = open_table(tmp_path)
    table.keep("a", [video], [{"distance": 1.0}])
    table.keep("gone", [tmp_path / "gone.mp4"], [], reason="not made")
    again = open_table(tmp_path)
    assert again.has("a", [video]) and again.has("gone", [tmp_path / "gone.mp4"])
    assert not again.has("b", [video])
    video.write_bytes(b"another")
    assert not again.has("a", [video])
    (tmp_path / "gone.mp4").write_bytes(b"there")
    assert not again.has("gone", [tmp_path / "gone.mp4"])


def test_a_line_cut_short_by_a_kill_is_made_again(tmp_path):
    table = open_table(tmp_path)
    table.keep("a", [], [{"distance": 1.0}])
    table.keep("b", [], [{"distance": 2.0}])
    log = tmp_path / "lse.jsonl"
    os.truncate(log, log.stat().st_size - 5)
    again = open_table(tmp_path)
    assert again.has("a", []) and not again.has("b", [])
    again.keep("b", [], [{"distance": 2.0}])
    assert open_table(tmp_path).finish()["scores"]["distance"]["n"] == 2


def test_other_settings_begin_anew_and_keep_the_old_log(tmp_path):
    open_table(tmp_path).keep("a", [], [{"distance": 1.0}])
    assert not open_table(tmp_path, vshift=10).has("a", [])
    assert "1.0" in (tmp_path / "lse.jsonl.old").read_text()


def test_unknown_column_is_a_mistake_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="lse has no columns"):
        open_table(tmp_path).keep("a", [], [{"LSE": 1.0}])


def test_seconds_are_kept_by_video_and_survive_a_resume(tmp_path, monkeypatch):
    clock = iter([10.0, 12.5, 20.0, 21.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))

    def score(further):
        if further == "bad":
            raise InputError("no face")  # took its second all the same
        return {"distance": 1.0}

    items = [("a", [], "good"), ("b", [], "bad")]
    assert open_table(tmp_path).run(items, score, progress=False)["seconds"] == 3.5
    assert open_table(tmp_path).finish(["a"])["seconds"] == 2.5
    assert open_table(tmp_path).finish()["seconds"] == 3.5


def test_only_the_videos_asked_for_count(tmp_path):
    table = open_table(tmp_path)
    table.keep("a", [], [{"distance": 1.0}])
    table.keep("b", [], [{"distance": 3.0}])
    assert table.finish(["b"])["scores"]["distance"]["mean"] == 3.0


def test_run_scores_what_is_lacking_and_keeps_reasons(tmp_path):
    scored = []

    def score(path, further):
        scored.append(path)
        if further == "bad":
            raise InputError("no\nface")
        return [{"distance": 1.0}, {"distance": 3.0}] if further == "two" else {"distance": 5.0}

    items = [("a", ["a.mp4"], "one"), ("b", ["b.mp4"], "two"), ("c", ["c.mp4"], "bad")]
    summary = open_table(tmp_path).run(items, score)
    assert summary["rows"] == 3 and summary["scores"]["distance"]["mean"] == 3
    assert summary["skipped"] == [{"video": "c", "reason": "no face"}]
    assert open_table(tmp_path).run(items, score) == summary and len(scored) == 3

    class Other(InputError):
        """Of another kind than what is to be skipped."""

    with pytest.raises(InputError, match="face"):
        open_table(tmp_path).run(
            [("d", [], "x", "bad")], lambda _, kind: score(_, kind), skip=Other
        )
    assert not open_table(tmp_path).has("d", [])  # to be tried again
