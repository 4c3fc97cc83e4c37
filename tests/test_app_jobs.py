"""app_jobs.py: what becomes of the users' files, the limits, and what the page's fields mean."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from app import make_examples
from app_jobs import SHOWN, Jobs, Stopped, parse_options, shown_flags
from audio import save_wav
from errors import InputError
from inference import LipSync
from media import probe
from options import Options

MAX_SECONDS = 4
BOX = {"box": (60, 200, 60, 190)}  # no detector needed


@pytest.fixture(scope="module")
def lipsync(weights):
    return LipSync(weights, "cpu", backend="torch")


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    make_examples(folder)
    return folder


@pytest.fixture
def jobs(lipsync, examples, tmp_path):
    return Jobs(lipsync, tmp_path, examples, MAX_SECONDS)


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
    return {path.name for path in folder.rglob("*") if path.is_file()}


def ignore(done, total):
    pass


def test_uploads_are_gone_after_success_and_results_with_the_next_job(jobs, upload, tmp_path):
    seen = []
    jobs.claim("ann", upload("face.mp4"), upload("voice.wav"), BOX)
    result, original, note = jobs.run("ann", lambda *done: seen.append(done))
    assert seen[0] == (1, 75) and seen[-1] == (75, 75) and "75 frames" in note
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
    def fail(done, total):
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


def test_lengths_are_limited(jobs, lipsync, upload, examples, tmp_path):
    long = speech(tmp_path / "long.wav", MAX_SECONDS + 0.1)
    line = refused(jobs, upload("face.mp4"), upload("long.wav", long), tmp_path)
    assert line == "the speech is longer than 4 seconds: cut it"
    short = Jobs(lipsync, tmp_path, examples, 2)
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
        jobs.run("ann", lambda done, total: jobs.stop("ann"))
    assert files(tmp_path) == set()
    jobs.claim("ann", upload("face.mp4"), upload("voice.wav"), BOX)
    with pytest.raises(Stopped):
        jobs.run("ann", lambda done, total: jobs.leave("ann"))
    assert files(tmp_path) == set()


def test_two_users_may_upload_the_same_file(jobs, upload, tmp_path):
    face, voice = upload("photo.jpg"), upload("voice.wav")
    jobs.claim("ann", face, voice, BOX)
    jobs.claim("bob", face, voice, BOX)
    first, second = jobs.run("ann", ignore), jobs.run("bob", ignore)
    assert first[0] != second[0] and all(map(os.path.isfile, first[:2] + second[:2]))
    with pytest.raises(InputError, match="the face is gone.*choose it again"):
        jobs.claim("eve", face, voice, BOX)


def test_examples_are_made_once_and_stay(jobs, examples):
    before = {path: os.stat(path).st_mtime_ns for path in make_examples(examples).values()}
    assert {path: os.stat(path).st_mtime_ns for path in before} == before
    jobs.claim("ann", str(examples / "photo.jpg"), str(examples / "voice.wav"), BOX)
    jobs.run("ann", ignore)
    assert files(examples) == {"face.mp4", "photo.jpg", "voice.wav"}


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
