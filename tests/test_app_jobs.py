"""page/jobs.py: what becomes of the users' files, the limits, and what the page's fields mean."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from app import make_examples, private_folder
from audio import save_wav
from backends.base import CHUNK
from errors import InputError
from lipsync.engine import LipSync
from lipsync.options import Options
from media.read import probe
from page.jobs import SHOWN, Jobs, Stopped, parse_options, shown_flags

MAX_SECONDS = 4
BOX = {"box": (60, 200, 60, 190)}  # no detector needed


@pytest.fixture(scope="module")
def lipsync(weights):
    return LipSync(weights, "cpu", backend="torch")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "examples"
    make_examples(folder)
    return folder


@pytest.fixture
def examples(made, tmp_path):
    return shutil.copytree(made, tmp_path / "examples")


@pytest.fixture
def jobs(lipsync, examples, tmp_path):
    return Jobs(lipsync, tmp_path, MAX_SECONDS)


@pytest.fixture
def upload(tmp_path, examples):
    """A copy of an example in a folder of its own, as gradio keeps uploads."""

    def copied(name: str, source: Path | None = None) -> str:
        folder = tmp_path / "served" / name.replace(".", "_")
        folder.mkdir(parents=True, exist_ok=True)
        return shutil.copy(source or examples / name, folder / name)

    return copied


def speech(path: Path, seconds: float) -> str:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, round(16000 * seconds))
    save_wav(noise.astype(np.float32), path)
    return str(path)


def files(folder: Path) -> set[str]:
    """But the examples and the server's lock."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {p.name for p in found if p.parent.name != "examples" and p.name != "lock"}


def ignore(stage, done, total):
    pass


def test_uploads_are_gone_after_success_and_results_with_the_next_job(jobs, upload, tmp_path):
    seen = []
    jobs.claim("ann", upload("face.mp4"), upload("voice.wav"), BOX)
    result, original, note = jobs.run("ann", lambda *done: seen.append(done))
    assert "75 frames" in note
    assert seen == [("lips", n, 75) for n in range(76)] + [
        ("original", n + 1, 75) for n in range(75)
    ]
    assert files(tmp_path) == {"result_voice.mp4", "original.mp4"}
    shown = probe(original)
    assert probe(result).duration == pytest.approx(shown.duration) == pytest.approx(3)
    assert probe(result).has_audio and not shown.has_audio
    jobs.claim("ann", upload("photo.jpg"), upload("voice.wav"), BOX)
    assert files(tmp_path) == {"photo.jpg", "voice.wav"}
    jobs.run("ann", ignore)
    jobs.leave("ann")
    assert files(tmp_path) == set()


def test_a_fault_of_the_program_leaves_nothing(jobs, upload, tmp_path):
    def fail(stage, done, total):
        raise RuntimeError("broken")

    jobs.claim("ann", upload("face.mp4"), upload("voice.wav"), BOX)
    with pytest.raises(RuntimeError):
        jobs.run("ann", fail)
    assert files(tmp_path) == set()


def refused(jobs, face, audio, root) -> str:
    with pytest.raises(InputError) as error:
        jobs.claim("ann", face, audio, {})
    assert str(root) not in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_used_is_refused_before_work_and_deleted(jobs, upload, tmp_path):
    text = tmp_path / "text"
    text.write_text("not a video\n")
    assert "choose a face" in refused(jobs, None, upload("voice.wav"), tmp_path)
    assert "choose a speech" in refused(jobs, upload("face.mp4"), None, tmp_path)
    line = refused(jobs, upload("holiday.mp4", text), upload("voice.wav"), tmp_path)
    assert line.startswith("video cannot be decoded: holiday.mp4 (")
    line = refused(jobs, upload("photo.jpg"), upload("song.mp3", text), tmp_path)
    assert "cannot be decoded: song.mp3" in line


def test_lengths_are_limited(jobs, lipsync, upload, tmp_path):
    long = speech(tmp_path / "long.wav", MAX_SECONDS + 0.1)
    line = refused(jobs, upload("face.mp4"), upload("long.wav", long), tmp_path)
    assert line == "the speech is longer than 4 seconds: cut it"
    short = Jobs(lipsync, tmp_path, 2)
    audio = upload("short.wav", speech(tmp_path / "short.wav", 1))
    line = refused(short, upload("face.mp4"), audio, tmp_path)
    assert line == "the face video is longer than 2 seconds: cut it"
    assert files(tmp_path / "served") == files(tmp_path / "jobs") == set()


def test_a_face_that_is_not_found_is_named_as_the_user_names_it(jobs, upload, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 200, 3), 128, np.uint8))
    wall = upload("wall.png", tmp_path / "wall.png")
    jobs.claim("ann", wall, upload("voice.wav"), {})
    with pytest.raises(InputError, match="^no face found in wall.png; "):
        jobs.run("ann", ignore)
    assert files(tmp_path) == {"wall.png"}  # the test's own


def test_one_job_a_user_and_stop(jobs, upload, tmp_path):
    jobs.claim("ann", upload("face.mp4"), upload("voice.wav"), BOX)
    with pytest.raises(InputError, match="not over"):
        jobs.claim("ann", upload("face.mp4"), upload("voice.wav"), BOX)
    assert jobs.stop("ann")  # it waits
    assert not jobs.stop("ann") and not jobs.stop("eve")
    assert files(tmp_path) == set()
    with pytest.raises(Stopped):
        jobs.run("ann", ignore)
    jobs.claim("ann", upload("face.mp4"), upload("voice.wav"), BOX)
    with pytest.raises(Stopped):  # it runs
        jobs.run("ann", lambda *_: jobs.stop("ann"))
    assert files(tmp_path) == set()
    jobs.claim("ann", upload("face.mp4"), upload("voice.wav"), BOX)
    with pytest.raises(Stopped):
        jobs.run("ann", lambda *_: jobs.leave("ann"))
    assert files(tmp_path) == set()


@pytest.mark.parametrize("stage", ("faces", "lips", "original"))
@pytest.mark.parametrize("face", ("face.mp4", "photo.jpg"))
def test_stop_acts_in_every_stage_and_frees_the_device(jobs, upload, tmp_path, face, stage):
    told = []

    def stop(*now):
        told.append(now)
        if now[0] == stage and now[1] >= min(10, now[2] - 1):
            jobs.stop("ann")

    audio = upload("short.wav", speech(tmp_path / "short.wav", 1))
    jobs.claim("ann", upload(face), audio, {})
    with pytest.raises(Stopped):
        jobs.run("ann", stop)
    total = 1 if (stage, face) == ("faces", "photo.jpg") else 25
    assert told[-1] == (stage, min(10, total - 1), total)  # and nothing after it
    assert files(tmp_path) == {"short.wav"}  # the test's own
    assert not [thread for thread in threading.enumerate() if thread.name == "stage"]
    jobs.claim("bob", upload("photo.jpg"), upload("voice.wav"), BOX)
    jobs.run("bob", ignore)


def test_who_leaves_while_the_files_are_looked_at_leaves_nothing(
    jobs, upload, examples, tmp_path, monkeypatch
):
    take = jobs._take

    def taken(job, path, what):
        if what == "speech":
            jobs.leave("ann")
        return take(job, path, what)

    monkeypatch.setattr(jobs, "_take", taken)
    with pytest.raises(Stopped):
        jobs.claim("ann", str(examples / "photo.jpg"), upload("voice.wav"), {})
    assert files(tmp_path) == set()


def test_folders_of_killed_servers_go_those_of_living_ones_stay(tmp_path, monkeypatch):
    code = (
        "import time\nfrom app import private_folder\nwith private_folder() as root:\n"
        "    (root / 'me.mp4').touch(); print(root, flush=True); time.sleep(600)"
    )
    how = {"env": os.environ | {"TMPDIR": str(tmp_path)}, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", code]
    servers = [subprocess.Popen(command, cwd=REPOSITORY, **how) for _ in range(2)]
    try:
        killed, living = (Path(server.stdout.readline().decode().strip()) for server in servers)
        servers[0].kill(), servers[0].wait()
        (tmp_path / "wav2lip_app_new").mkdir()  # its server is about to take its lock
        shutil.copytree(living, tmp_path / "elsewhere")
        (tmp_path / "wav2lip_app_link").symlink_to("elsewhere")
        assert files(killed) == files(living) == {"me.mp4"}
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        with private_folder() as own:
            found = {path.name for path in tmp_path.iterdir()}
        assert found == {own.name, living.name, "wav2lip_app_new", "wav2lip_app_link", "elsewhere"}
        assert files(living) == files(tmp_path / "elsewhere") == {"me.mp4"}
        assert not own.exists()
    finally:
        for server in servers:
            server.kill()
            server.communicate()


def test_two_users_may_upload_the_same_file(jobs, upload, tmp_path):
    face, voice = upload("photo.jpg"), upload("voice.wav")
    jobs.claim("ann", face, voice, BOX)
    jobs.claim("bob", face, voice, BOX)
    first, second = jobs.run("ann", ignore), jobs.run("bob", ignore)
    assert first[0] != second[0] and all(map(os.path.isfile, first[:2] + second[:2]))
    with pytest.raises(InputError, match="the face is gone.*choose it again"):
        jobs.claim("eve", face, voice, BOX)


def test_frames_and_batches_are_limited(jobs, upload, tmp_path, monkeypatch):
    sizes, size = [], jobs.lipsync._batch_size
    monkeypatch.setattr(jobs.lipsync, "_batch_size", lambda *a: sizes.append(size(*a)) or sizes[-1])
    monkeypatch.setattr("page.jobs.MAX_SIDE", 100)
    audio = upload("short.wav", speech(tmp_path / "short.wav", 0.4))
    jobs.claim("ann", upload("photo.jpg"), audio, {"box": (10, 90, 10, 90)})
    result, _, _ = jobs.run("ann", ignore)
    assert (probe(result).width, probe(result).height, *sizes) == (124, 100, CHUNK)  # of 360x288


def test_examples_stay(jobs, examples):
    jobs.claim("ann", str(examples / "photo.jpg"), str(examples / "voice.wav"), BOX)
    jobs.run("ann", ignore)
    assert {path.name for path in examples.iterdir()} == {"face.mp4", "photo.jpg", "voice.wav"}


def test_fields_stand_for_options():
    flags = shown_flags()
    empty = {name: False if flags[name].nargs == 0 else "" for name in SHOWN}
    assert Options(**parse_options(empty)) == Options()
    filled = empty | {"pads": " 0 20 0 0 ", "target": "3,4.5", "silence_gate": "-45",
                      "nosmooth": True, "pad": "bounce"}  # fmt: skip
    assert parse_options(filled) == {
        "nosmooth": True, "rotate": False, "faithful": False, "pads": [0, 20, 0, 0],
        "target": (3, 4.5), "silence_gate": -45, "pad": "bounce",
    }  # fmt: skip


def test_fields_reach_no_other_option():
    for field, text in (("pads", "0 10 0 0 --enhance sh"), ("mark", "x --enhance sh")):
        assert "enhance" not in parse_options({field: text})
    assert parse_options({"enhance": "sh", "cache": True}) == {}
    for field, text in (("pads", "1 2"), ("face_index", "-1"), ("paste", "glue"), ("pads", "-h")):
        with pytest.raises(InputError):
            parse_options({field: text})
