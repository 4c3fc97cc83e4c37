"""evaluation/report.py: the whole report in one command, killed and resumed, and its words."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY, assert_refused, run_script

from evaluation.pairs import Pair
from evaluation.report import GROUPS, Videos, get_args_parser, score_sync, wrong_sound
from evaluation.report_plots import rank
from evaluation.report_text import _verdict

# nothing is to be downloaded, wherever the tests run
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A small generator."""
    import torch

    from checkpoint import describe_model
    from models import create_model

    path = tmp_path_factory.mktemp("report") / "w.pth"
    torch.manual_seed(0)
    model = create_model("Wav2Lip", 0.125)
    torch.save({"state_dict": model.state_dict(), "model": describe_model(model)}, path)
    return path


@pytest.fixture(scope="module")
def command(weights, synthetic_root, trained_expert):
    """The report of two clips, each with another speaker's sound."""
    listed = weights.with_name("list.txt")
    listed.write_text("s0001/00001 s0000/00001\ns0000/00002 s0001/00002\n")
    return [
        "-m", "evaluation.report", "--checkpoint", weights, "--filelist", listed,
        "--data_root", synthetic_root / "mvlrs_v1/main", "--detector", "centerface",
        "--syncnet_weights", weights.with_name("none.model"), "--expert", trained_expert,
        "--device", "cpu",
    ]  # fmt: skip


def made(folder) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*/*.m??") if p.stem.isdigit()}


@pytest.fixture(scope="module")
def killed_and_whole(command, tmp_path_factory):
    """(folder of a run that was killed in its first scores and run again, that of one in peace,
    the videos that were there at the kill).
    """
    folder = tmp_path_factory.mktemp("out")
    killed, whole = folder / "killed", folder / "whole"
    environment = os.environ | OFFLINE
    argv = [sys.executable, *map(str, command), "--out"]
    process = subprocess.Popen([*argv, killed], cwd=REPOSITORY, env=environment)
    log = killed / "scores" / "generated" / "sync_lrs.jsonl"
    for _ in range(1200):
        if log.exists() and log.read_text().count("\n") > 1 or process.poll() is not None:
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    before = made(killed)
    for name in ("generated", "own_sound"):  # x264 need not repeat itself byte for byte
        shutil.copytree(killed / name, whole / name)
    for out in (killed, whole):
        result = subprocess.run(
            [*argv, out], cwd=REPOSITORY, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
    return killed, whole, before


def test_a_killed_run_ends_with_the_same_report(killed_and_whole):
    killed, whole, before = killed_and_whole
    assert len(before) == 4 and made(killed) == before  # nothing that was finished is redone
    for name in ("report.md", "report.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_every_part_is_there(killed_and_whole):
    _, whole, _ = killed_and_whole
    report = json.loads((whole / "report.json").read_text())
    assert report["generation"]["generated"]["videos"] == 2
    for group in ("generated", "real", "wrong sound"):
        assert report["sync"]["sync"][group]["scores"]["sync_distance"]["n"] == 2, group
    truth = report["quality"]["truth"]["scores"]
    assert truth["psnr"]["mean"] == 100 and truth["ssim"]["mean"] == pytest.approx(1)
    assert truth["psnr_mouth"]["mean"] == 100 and truth["temporal"]["mean"] == 0
    own = report["quality"]["own_sound"]["scores"]
    assert own["psnr"]["mean"] < 60 and own["lsd"]["mean"] > 0
    files = {entry["file"] for entry in report["missing"]}
    assert "pt_inception-2015-12-05-6726825d.pth" in files and "syncnet_v2.model" in files
    text = (whole / "report.md").read_text()
    for words in ("6.386", "7.15", "**w.pth**", "FID", "tells", "`lrs`", "Left out\n\nNothing"):
        assert words in text
    for picture in report["pictures"].values():
        assert (whole / picture).stat().st_size > 1000


def test_a_wrong_root_or_list_is_refused(command, tmp_path):
    place = command.index("--data_root") + 1
    wrong = [*command[:place], tmp_path, *command[place + 1 :], "--out", tmp_path / "out"]
    assert_refused(run_script(*wrong), "none of the 2 pairs", "--data_root")
    place = command.index("--expert") + 1
    wrong = [*command[:place], tmp_path / "none.pth", *command[place + 1 :]]
    assert_refused(run_script(*wrong, "--out", tmp_path / "out"), "not found")
    assert not (tmp_path / "out").exists()


def test_lse_of_every_group(tmp_path, synthetic_root):
    """With SyncNet v2's weights there, its numbers are LSE."""
    import torch
    from fill import fill

    from models import create_model

    weights = tmp_path / "syncnet_v2.model"
    torch.save(fill(create_model("SyncNet_v2")).state_dict(), weights)
    args = get_args_parser().parse_args(
        ["--checkpoint", "w.pth", "--filelist", "l.txt", "--data_root", "d", "--device", "cpu",
         "--out", str(tmp_path), "--syncnet_weights", str(weights)]
    )  # fmt: skip
    clip, other = (str(synthetic_root / f"mvlrs_v1/main/s000{i}/00001.mp4") for i in (0, 1))
    videos = Videos([("0 b a", clip)], [("a", clip)], [("0 b a", clip, other)])
    missing = []
    scores = score_sync(args, videos, missing)
    assert set(scores) == {"lse"} and [m["metric"] for m in missing] == [
        "sync_distance, sync_confidence"
    ]
    lse = {group: scores["lse"][group]["scores"] for group in GROUPS}
    assert lse["generated"] == lse["real"]  # the same clip
    assert lse["wrong sound"]["lse_d"]["mean"] != lse["real"]["lse_d"]["mean"]


def test_wrong_sound_is_never_the_clips_own():
    other = [Pair(0, "a", "b"), Pair(1, "c", "d")]
    assert [wrong_sound(pair, other) for pair in other] == ["a", "c"]
    same = [Pair(i, name, name) for i, name in enumerate("abcde")]
    assert all(wrong_sound(pair, same) != pair.video for pair in same)


def test_clips_are_ranked_by_their_mean():
    scores = {"a": [{"d": 3.0}, {"d": 5.0}], "b": [{"d": 1.0}], "c": [], "e": [{"d": None}]}
    assert rank(scores, "d") == ["b", "a"]


def test_a_metric_that_cannot_tell_is_said_so():
    def groups(real, wrong):
        return {"real": {"scores": {"lse_d": {"mean": real}}},
                "wrong sound": {"scores": {"lse_d": {"mean": wrong}}}}  # fmt: skip

    assert "tells the right sound" in _verdict(groups(6, 9), ("lse_d",))
    assert "does NOT tell" in _verdict(groups(9, 6), ("lse_d",))
