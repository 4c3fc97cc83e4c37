"""evaluation/human_study.py and its page: what is shown to whom, answers, kills, scores."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import Page, urlopen
from conftest import REPOSITORY, run_script, smooth_frames, write_video

from errors import InputError, run_cli
from evaluation.human_study import (
    QUESTIONS,
    Study,
    agreement,
    find_videos,
    format_scores,
    get_args_parser,
    interval,
    main,
    make_study,
    score_study,
)

CLIPS = 4


def write_report(folder: Path, name: str, clips: int = CLIPS, seed: int = 0) -> Path:
    """What make reads of a report: videos that differ, and which clip each is of."""
    (folder / "generated").mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"name": name}))
    with open(folder / "generated" / "pairs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "file", "frames"])
        for number in range(clips):
            writer.writerow([f"{number} a/{number} b, c", f"{number}.mp4", 12])
            frames = smooth_frames(12, seed=100 * seed + number)
            write_video(folder / "generated" / f"{number}.mp4", frames, seconds=0.48)
    return folder


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The report of two checkpoints, as evaluation.report lays it out."""
    root = tmp_path_factory.mktemp("reports") / "both"
    write_report(root / "good_one", "good/one", seed=1)
    write_report(root / "bad", "bad", seed=2)
    (root / "report.json").write_text(json.dumps({"names": ["good/one", "bad"]}))
    return root


@pytest.fixture
def study(reports, tmp_path):
    make_study([str(reports)], str(tmp_path / "study"), 3)
    return Study(str(tmp_path / "study"))


def give(study: Study, rater: str, item: str, score=None) -> None:
    """A score, or for a pair the report that is better."""
    if len(study.items[item]) == 1:
        study.keep(rater, item, **dict.fromkeys(QUESTIONS, score))
    else:
        shown = [study.files[name]["report"] for name in study.items[item]]
        side = ("left", "right")[shown.index(score)] if score else "neither"
        study.keep(rater, item, preference=side)


def test_a_study_is_blinded_whole_and_of_its_seed(reports, tmp_path):
    first, again, other = (
        make_study([str(reports)], str(tmp_path / name), seed)
        for name, seed in (("one", 1), ("two", 1), ("three", 2))
    )
    assert first == again != other
    names = sorted(path.name for path in (tmp_path / "one" / "clips").iterdir())
    assert names == [f"{number:04}.mp4" for number in range(2 * CLIPS)] == sorted(first["files"])
    folders = {"good/one": "good_one", "bad": "bad"}
    for name, about in first["files"].items():
        place = reports / folders[about["report"]] / "generated" / f"{about['clip'][0]}.mp4"
        assert (tmp_path / "one" / "clips" / name).read_bytes() == place.read_bytes()
    pairs = [files for files in first["items"].values() if len(files) == 2]
    assert len(first["items"]) == 2 * CLIPS + len(pairs) and len(pairs) == CLIPS
    sides = [[first["files"][name] for name in pair] for pair in pairs]
    assert all(left["clip"] == right["clip"] for left, right in sides)
    assert all({left["report"], right["report"]} == {"good/one", "bad"} for left, right in sides)
    key = make_study([str(reports)], str(tmp_path / "few"), 1, limit=2)
    assert len(key["files"]) == 4 and len(key["items"]) == 6


def test_of_several_reports_the_clips_that_all_have(reports, tmp_path):
    short = write_report(tmp_path / "short", "bad", clips=3, seed=5)
    videos = find_videos([str(reports), str(short)])
    assert list(videos) == ["good/one", "bad", f"bad ({short})"]
    key = make_study([str(reports), str(short)], str(tmp_path / "study"), 0)
    assert len(key["files"]) == 9 and len(key["items"]) == 9 + 9  # three twos of three clips


def test_the_order_is_a_rater_s_own_with_pairs_last(study):
    orders = {}
    for rater in ("ann", "bob"):
        seen = []
        while (found := study.next(rater))[0]:
            assert found[1] == len(seen)
            seen.append(found[0])
            give(study, rater, found[0], 3 if len(study.items[found[0]]) == 1 else None)
        orders[rater] = seen
        assert sorted(seen) == sorted(study.items)
        assert [len(study.items[item]) for item in seen] == [1] * 2 * CLIPS + [2] * CLIPS
    assert orders["ann"] != orders["bob"]


def test_agreement():
    none = math.nan  # Krippendorff (2011), "Computing Krippendorff's alpha-reliability", C and E
    scores = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, none, none, none],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, none, 3],
        [none, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, none],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, none],
    ]
    assert agreement(np.array(scores)) == pytest.approx(0.849, abs=5e-4)
    assert agreement(np.array([[1.0, 5], [1, 5]])) == 1
    assert agreement(np.array([[1.0, 5], [5, 1]])) == pytest.approx(-0.5)  # 1 - 8 / (16 / 3)
    assert agreement(np.array([[1.0, none], [none, 5]])) is None  # no item has two
    assert agreement(np.full((2, 2), 3.0)) is None


def test_interval():
    assert interval(np.full((3, 4), 2.0)) == [2, 2]
    scores = np.array([[1.0, 5] * 200])  # one rater, 400 clips: 3 +- 1.96 * 2 / sqrt(400)
    assert interval(scores) == pytest.approx([2.804, 3.196], abs=0.02)
    assert interval(scores.T) == pytest.approx([2.804, 3.196], abs=0.02)
    both = np.add.outer([-1.0, 1] * 50, [2.0, 4] * 50)  # variances 1 / 100 and 1 / 100
    assert interval(both) == pytest.approx([3 - 0.277, 3 + 0.277], abs=0.02)
    both[0, 0] = math.nan
    assert interval(both) == pytest.approx([3 - 0.277, 3 + 0.277], abs=0.02)


def test_scores(study):
    """All rate the good one's clips 4 and the bad one's 2; of pairs 5 are for the good, 1 not."""
    singles = {i: study.files[f[0]] for i, f in study.items.items() if len(f) == 1}
    pairs = [item for item in study.items if item not in singles]
    for rater in ("ann", "bob"):
        for item, about in singles.items():
            give(study, rater, item, 4 if about["report"] == "good/one" else 2)
    for rater, item, better in zip(
        ["ann"] * 4 + ["bob"] * 3, [*pairs, *pairs], ["good/one"] * 5 + ["bad", None], strict=False
    ):
        give(study, rater, item, better)
    give(study, "ann", next(iter(singles)), 1)  # and thought better of it
    item, about = next(iter(singles.items()))
    give(study, "ann", item, 4 if about["report"] == "good/one" else 2)
    scores = score_study(study)
    assert scores["raters"] == ["ann", "bob"] and scores["answers"] == 16 + 7
    for report, mean in (("good/one", 4), ("bad", 2)):
        for question in QUESTIONS:
            expected = {"mean": mean, "interval": [mean, mean], "n": 2 * CLIPS}
            assert scores["means"][report][question] == expected
    (found,) = scores["preferences"]
    order = list(scores["means"])
    assert found["reports"] == tuple(order)
    assert found["counts"] == ((5, 1, 1) if order[0] == "good/one" else (1, 5, 1))
    assert found["p"] == pytest.approx(2 * 7 / 64)  # of 6 throws 5 or 6, or 0 or 1
    assert scores["agreement"]["sync"] == 1
    text = format_scores(scores)
    assert "| bad | 2.00 [2.00, 2.00] |" in text and "71% (5)" in text and "| 0.219 |" in text


def test_scores_of_one_rater_of_one_report(reports, tmp_path):
    make_study([str(reports / "bad")], str(tmp_path / "study"), 0)
    study = Study(str(tmp_path / "study"))
    give(study, "ann", "clip 0", 5)
    scores = score_study(study)
    assert scores["preferences"] == [] and scores["agreement"]["sync"] is None
    assert "| bad | 5.00 [5.00, 5.00] |" in format_scores(scores)


def test_a_line_that_a_kill_cut_short(study, capsys):
    give(study, "ann", "clip 0", 5)
    whole = Path(study.log).read_bytes()
    Path(study.log).write_bytes(whole + whole[:-9])
    assert list(study.read()) == [("ann", "clip 0")]
    assert "cut short, and is ignored" in capsys.readouterr().err
    study.read(mend=True)
    assert "cut short, and is removed" in capsys.readouterr().err
    assert Path(study.log).read_bytes() == whole
    give(study, "ann", "clip 1", 5)
    assert len(study.read()) == 2 and not capsys.readouterr().err


def test_an_answer_that_could_not_be_written_leaves_no_half(study, monkeypatch):
    give(study, "ann", "clip 0", 5)
    whole = Path(study.log).read_bytes()

    def fail(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="No space"):
            give(study, "ann", "clip 1", 5)
    assert Path(study.log).read_bytes() == whole


@pytest.mark.parametrize(
    "given", [{}, {"sync": 6, "quality": 1, "overall": 1}, {"preference": "left"}]
)
def test_an_answer_that_is_none_is_not_kept(study, given):
    with pytest.raises(InputError, match="1 to 5"):
        study.keep("ann", "clip 0", **given)
    with pytest.raises(InputError, match="left, right, neither"):
        study.keep("ann", "pair 0", sync=1)
    assert not os.path.exists(study.log)


def test_bad_input_is_one_line(reports, study, tmp_path, capsys, monkeypatch):
    folder, new = Path(study.log).parent, tmp_path / "new"
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def refused(words: str, *argv: object) -> None:
        with pytest.raises(SystemExit) as end:
            run_cli(main, get_args_parser(), [*map(str, argv)])
        said = capsys.readouterr().err
        assert end.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1
        assert words in said

    make = ("make", "--out", new, "--report")
    refused("report not found", *make, tmp_path / "no")
    empty = write_report(tmp_path / "empty", "empty", clips=0)
    refused("has made no video", *make, empty)
    refused("has made no video", *make, reports, "--report", empty)
    (write_report(tmp_path / "lost", "lost") / "generated/1.mp4").unlink()
    refused("1.mp4", *make, tmp_path / "lost")
    (empty / "report.json").write_text("# Evaluation")
    refused("report is not JSON", *make, empty)
    (empty / "report.json").write_text("[]")
    refused("report is something else", *make, empty)
    assert not new.exists()
    refused("another --out", "make", "--report", reports, "--out", folder)
    score, serve = (("score", "--study", folder), ("serve", "--study", folder))
    for command in ("serve", "score"):
        refused("study not found", command, "--study", tmp_path / "no")
    refused("nobody has answered", *score)
    for line, words in (
        (b'{"rater": "ann", "item"', "line 1 is no answer"),
        (b'"\xff"', "line 1 is no answer"),
        (b'{"rater": "ann", "item": "clip 99"}', "no item 'clip 99'"),
        (b'{"item": "clip 0"}', "no rater"),
        (b'{"rater": "ann", "item": "clip 0", "sync": 9}', "1 to 5"),
    ):
        Path(study.log).write_bytes(line + b"\n")
        refused(words, *score)
        refused(words, *serve)
    Path(study.log).unlink()
    (folder / "clips" / "0003.mp4").unlink()
    refused("0003.mp4", *serve)
    (folder / "key.json").write_text('{"seed": 1}')
    refused("has no 'files'", *score)


class RaterPage(Page):
    """What a rater does with the study's page."""

    def begin(self, name: str) -> None:
        self.shown("#rater input, #rater textarea").send_keys(name)
        self.shown("#begin").click()

    def shown(self, selector: str):
        """The element, once the page has drawn it."""
        return self.wait(lambda: self.find(selector))

    def pick(self, field: str, value: object) -> None:
        button = self.shown(f"#{field} input[value='{value}']")
        self.driver.execute_script("arguments[0].click()", button)

    def judge(self, number: int, total: int, score: int) -> None:
        """Answer the item that is the so manyth of all."""
        self.said(f"{number} of {total}")
        assert not self.find("input:checked")  # nothing is left of the last
        if self.find("#choice input"):
            assert self.video("left")["src"] != self.video("right")["src"]
            self.pick("choice", "left")
        else:
            for name in QUESTIONS:
                self.pick(name, score)
        self.shown("#send").click()


@contextlib.contextmanager
def served(folder: Path, port: int):
    """The study's page, from a process of its own: (address, process)."""
    argv = ["-m", "evaluation.human_study", "serve", "--study", str(folder), "--port", str(port)]
    process = subprocess.Popen([sys.executable, *argv], cwd=REPOSITORY, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.startswith("open http"), process.stderr.read()
        yield line.split()[1], process
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_raters_a_kill_half_way_and_the_scores(study, tmp_path):
    pytest.importorskip("gradio", reason="gradio is not installed: requirements-app.txt")
    folder, total, port = Path(study.log).parent, 3 * CLIPS, free_port()
    with contextlib.ExitStack() as stack:
        with served(folder, port) as (address, process):
            ann, bob = (RaterPage(address, tmp_path / name, stack) for name in ("ann", "bob"))
            ann.begin("  Ann ")
            bob.begin("Bob")
            assert ann.video("left")["duration"] == pytest.approx(0.48, abs=0.05)
            for number in range(1, total // 2 + 1):
                ann.judge(number, total, 4)
            bob.judge(1, total, 2)
            bob.said(f"2 of {total}")
            bob.find("#send").click()  # without an answer
            bob.said("Answer all of it first")
            ann.said(f"{total // 2 + 1} of {total}")
            process.kill()
            process.wait()
        assert len(study.read()) == total // 2 + 1
        with open(study.log, "a") as file:
            file.write('{"rater": "Ann", "ite')  # of an answer that nobody was told is kept
        with served(folder, port) as (address, _):
            for page, name, done in ((ann, "Ann", total // 2), (bob, "Bob", 1)):
                page.driver.get(address)
                page.begin(name)
                for number in range(done + 1, total + 1):
                    page.judge(number, total, 4 if name == "Ann" else 2)
                page.said("Thank you")
    answers = [json.loads(line) for line in Path(study.log).read_text().splitlines()]
    assert len(answers) == len({(a["rater"], a["item"]) for a in answers}) == 2 * total
    result = run_script("-m", "evaluation.human_study", "score", "--study", folder)
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert result.stdout == (folder / "scores.md").read_text()
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["raters"] == ["Ann", "Bob"]
    for report in ("good/one", "bad"):
        assert scores["means"][report]["sync"]["mean"] == 3
        assert scores["means"][report]["sync"]["n"] == 2 * CLIPS
    assert sum(scores["preferences"][0]["counts"]) == 2 * CLIPS
    assert scores["agreement"]["sync"] < 0


def test_the_page_gives_away_clips_alone(study):
    import urllib.error

    pytest.importorskip("gradio", reason="gradio is not installed: requirements-app.txt")
    with served(Path(study.log).parent, free_port()) as (address, _):
        clip = f"{address}gradio_api/file={study.clips}/0000.mp4"
        assert urlopen(clip).status == 200
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urlopen(f"{address}gradio_api/file={Path(study.log).parent}/key.json")
