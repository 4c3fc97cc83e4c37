"""Preprocessing at scale: shards, several processes, Ray."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from conftest import REPOSITORY, assert_refused, run_script

from corpus.listing import in_shard
from preparation.pieces import PieceRules
from preparation.process import Busy, Settings, claim
from preparation.run import run, run_on_ray

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


@pytest.mark.parametrize("split", ["on", "off"])
def test_what_a_former_version_left_unfinished_is_done_again(
    corpus_of_both_kinds, whole, tmp_path, split
):
    """It published pieces one by one, and pieces.json at the end."""
    for name in (name for name in whole if "talk_00001/000000/" in name):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(whole[name])
    argv = command(corpus_of_both_kinds, tmp_path, "--max_seconds", "1", "--split", split)
    subprocess.run(argv, check=True)
    if split == "on":
        assert tree(tmp_path) == whole
    else:
        assert (tmp_path / "s0000/talk_00001/clip.json").exists()
        assert not (tmp_path / "s0000/talk_00001/000000").exists()
    out = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert "8 were finished before, 0 failed" in out


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


def test_a_process_for_each_device_and_one_that_dies(corpus_of_both_kinds, whole, tmp_path):
    """It takes no more along than its own video; another takes its place."""
    import multiprocessing

    stream = run(videos_of(corpus_of_both_kinds), settings(tmp_path), ["cpu", "cpu"])
    results = [next(stream)]
    multiprocessing.active_children()[0].kill()
    results += stream
    failed = [result for result in results if result.error]
    assert len(results) == 8 and len(failed) <= 1
    assert all("worker process was killed" in result.error for result in failed)
    again = list(run(videos_of(corpus_of_both_kinds), settings(tmp_path), ["cpu"]))
    assert {result.name for result in again if not result.skipped} == {r.name for r in failed}
    assert tree(tmp_path) == whole


def test_a_ray_run_survives_the_loss_of_a_worker_and_leaves_the_connection(
    corpus_of_both_kinds, whole, tmp_path
):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
              runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY)}})  # fmt: skip
    try:
        stream = run_on_ray(videos_of(corpus_of_both_kinds), settings(tmp_path), "local", False)
        results = [next(stream)]
        workers = subprocess.run(["pgrep", "-f", "ray::Preparer"], capture_output=True, text=True)
        os.kill(int(workers.stdout.split()[0]), signal.SIGKILL)
        results += stream
        assert ray.is_initialized()  # it was the caller's
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


def test_nothing_that_only_unix_has_is_needed_to_import():
    code = (
        "import sys; sys.modules['fcntl'] = None; import preprocess, preparation.run, lipsync.jobs"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
