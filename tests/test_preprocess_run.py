"""Preprocessing at scale: kills, shards, several processes, Ray."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY, assert_refused, is_deaf_to_interrupts, run_script
from preparation.clip_writer import Busy, claim
from preparation.pipeline import Result, Settings

from corpus.listing import in_shard
from preparation.pieces import PieceRules
from preparation.run import Usage, run, run_on_ray

FLAGS = ("--ngpu", "0", "--detector", "boxes", "--workers", "2")  # known boxes: quick


def tree(root):
    """Relative path -> bytes of every file below root."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def command(data, out, *argv):
    return [sys.executable, str(REPOSITORY / "preprocess.py"), "--data_root", str(data),
            "--preprocessed_root", str(out), *FLAGS, *argv]  # fmt: skip


@pytest.fixture(scope="module")
def corpus_of_both_kinds(synthetic_root, tmp_path_factory):
    """Eight clips, and what they become when cut into pieces of a second: names are not LRS2's."""
    raw = tmp_path_factory.mktemp("raw")
    for path in (synthetic_root / "mvlrs_v1/main").rglob("*.*"):
        target = raw / path.parent.name / f"talk {path.name}"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    return raw


@pytest.fixture(scope="module")
def whole(corpus_of_both_kinds, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    subprocess.run(command(corpus_of_both_kinds, out, "--max_seconds", "1"), check=True)
    files = tree(out)
    assert {
            "s0000/talk_00001/000000/clip.json", "s0000/talk_00001/000025/clip.json",
            "s0000/talk_00001/pieces.json", "s0000/talk_00001/000025/24.jpg",
    } <= set(files)  # fmt: skip
    return files


def test_killed_at_random_moments_it_ends_as_if_undisturbed(corpus_of_both_kinds, whole, tmp_path):
    out, rng, kills = tmp_path / "out", random.Random(0), 0
    for _ in range(8):
        process = subprocess.Popen(command(corpus_of_both_kinds, out, "--max_seconds", "1"))
        time.sleep(rng.uniform(0.8, 2.0))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills > 0
    subprocess.run(command(corpus_of_both_kinds, out, "--max_seconds", "1"), check=True)
    assert tree(out) == whole


def test_a_video_is_taken_up_between_its_pieces(corpus_of_both_kinds, whole, tmp_path):
    """A run that ended when a video's first second was there: the rest keeps its own boxes."""
    boxes = json.loads(next(corpus_of_both_kinds.rglob("*.json")).read_text())["boxes"]
    assert boxes[0] != boxes[25]  # else a wrong one could not be told
    for name in (name for name in whole if "/000000/" in name):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(whole[name])
    subprocess.run(command(corpus_of_both_kinds, tmp_path, "--max_seconds", "1"), check=True)
    assert tree(tmp_path) == whole


def test_two_shards_equal_one_run(corpus_of_both_kinds, whole, tmp_path):
    for shard in ("1/2", "2/2"):
        argv = command(corpus_of_both_kinds, tmp_path, "--max_seconds", "1", "--shard", shard)
        subprocess.run(argv, check=True)
    assert tree(tmp_path) == whole
    names = [f"{i:03d}/{j:05d}" for i in range(100) for j in range(10)]
    parts = [sum(in_shard(name, (i, 3)) for name in names) for i in (1, 2, 3)]
    assert sum(parts) == 1000 and min(parts) > 280


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b"])
def test_shards_that_make_no_sense(shard, tmp_path):
    argv = ("--data_root", tmp_path, "--preprocessed_root", tmp_path, "--shard", shard)
    assert_refused(run_script("preprocess.py", *argv), "--shard must be i/n")


def settings(out, detector="boxes"):
    return Settings(str(out), detector, {}, 32, PieceRules(True, 25, 25), workers=1)


def videos_of(raw):
    return [(f"{path.parent.name}/{path.stem.replace(' ', '_')}", str(path))
            for path in sorted(raw.rglob("*.mp4"))]  # fmt: skip


def test_a_process_for_each_device(corpus_of_both_kinds, whole, tmp_path):
    usage = Usage()
    results = list(run(videos_of(corpus_of_both_kinds), settings(tmp_path), ["cpu", "cpu"], usage))
    assert len(results) == 8 and not any(result.error for result in results)
    assert tree(tmp_path) == whole
    assert set(usage.seconds) == {"decode", "write"}  # of both processes; known boxes cost nothing


def test_a_worker_process_that_dies_takes_only_its_own_video_along(
    corpus_of_both_kinds, whole, tmp_path
):
    import multiprocessing

    stream = run(videos_of(corpus_of_both_kinds), settings(tmp_path), ["cpu", "cpu"], Usage())
    results = [next(stream)]
    assert all(is_deaf_to_interrupts(child.pid) for child in multiprocessing.active_children())
    multiprocessing.active_children()[0].kill()
    results += stream
    failed = [result for result in results if result.error]
    assert len(results) == 8 and len(failed) == 1 and "process died" in failed[0].error
    again = list(run(videos_of(corpus_of_both_kinds), settings(tmp_path), ["cpu"], Usage()))
    assert {result.name for result in again if not result.skipped} <= {failed[0].name}
    assert tree(tmp_path) == whole


def answer_once(settings, device, connection):
    connection.send(Result(connection.recv()[0]))


def test_workers_that_die_after_an_answer_are_found_out(tmp_path, monkeypatch):
    """They are gone when the next videos are sent."""
    monkeypatch.setattr("preparation.run._serve", answer_once)
    videos = [(str(number), "x.mp4") for number in range(6)]
    stream = run(videos, settings(tmp_path), ["cpu", "cpu"], Usage())
    results = [next(stream)]
    for process in multiprocessing.active_children():
        process.join()
    results += stream
    errors = {result.name: result.error for result in results}
    assert len(results) == len(errors) == 6
    assert list(errors.values()).count(None) == 2
    assert sum("process died" in (error or "") for error in errors.values()) == 2
    assert sum("run again" in (error or "") for error in errors.values()) == 2


def test_workers_that_die_when_all_is_done_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr("preparation.run._serve", answer_once)
    videos = [("a", "x.mp4"), ("b", "x.mp4")]
    results = list(run(videos, settings(tmp_path), ["cpu", "cpu"], Usage()))
    assert len(results) == 2 and not any(result.error for result in results)


def test_a_ray_run_survives_the_loss_of_a_worker(corpus_of_both_kinds, whole, tmp_path):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
              runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY)}})  # fmt: skip
    try:
        stream = run_on_ray(
            videos_of(corpus_of_both_kinds), settings(tmp_path), "local", False, Usage()
        )
        results = [next(stream)]
        workers = subprocess.run(["pgrep", "-f", "ray::RayStation"], capture_output=True, text=True)
        os.kill(int(workers.stdout.split()[0]), signal.SIGKILL)
        results += stream
    finally:
        ray.shutdown()
    assert len(results) == 8 and not any(result.error for result in results)
    assert tree(tmp_path) == whole


def test_a_video_that_another_run_works_on_is_left_to_it(tmp_path):
    with claim(str(tmp_path / "a/b")) as part:
        assert os.listdir(part) == [".lock"]
        with pytest.raises(Busy), claim(str(tmp_path / "a/b")):
            pass
        assert os.path.isdir(part)
    with claim(str(tmp_path / "a/b")):
        pass
    assert not (tmp_path / "a/b.part").exists()


def test_the_report_says_where_the_time_went(synthetic_root, tmp_path):
    result = run_script("preprocess.py", "--data_root", synthetic_root / "mvlrs_v1/main/s0000",
                        "--preprocessed_root", tmp_path, "--ngpu", 0)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "clips/s" in result.stdout and "frames/s" in result.stdout
    line = result.stdout.splitlines()[2]
    assert all(stage in line for stage in ("decode", "detect", "write")), line
    assert sum(int(part.split()[-1].rstrip("%")) for part in line.split(":")[1].split(",")) > 97
    record = json.loads((tmp_path / "s0000/00001/clip.json").read_text())
    assert (record["first_frame"], record["next_frame"], record["other_faces"]) == (0, 50, 0)
