"""lipsync/enhance.py: the command's answers, its faults, and that nothing of it stays."""

from __future__ import annotations

import itertools
import select
import shlex
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from errors import InputError
from lipsync.enhance import enhanced

SIZE = 8
INVERT = """
import sys
size, hold = int(sys.argv[1]) ** 2 * 3, int(sys.argv[2])
held = []
while face := sys.stdin.buffer.read(size):
    held.append(bytes(255 - value for value in face))
    if len(held) > hold:
        sys.stdout.buffer.write(held.pop(0))
        sys.stdout.buffer.flush()
sys.stdout.buffer.write(b"".join(held))
"""
HALF = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read(192) + b'x' * 100)"
IDLE = "import time; time.sleep(20)"
SWALLOWS = "import sys, time\nwhile sys.stdin.buffer.read(192): pass\ntime.sleep(20)"
DIES = "import sys; sys.stdin.buffer.read(192); sys.exit('no such weights')"


def command(code, *argv):
    return shlex.join([sys.executable, "-c", code, *map(str, argv)])


def faces(count, every=1):
    """(number, a face of that brightness, or None where the number is no multiple of `every`)."""
    for number in range(count):
        shown = np.full((SIZE, SIZE, 3), number % 256, np.uint8) if number % every == 0 else None
        yield number, shown


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch):
    """Every process that was started has ended, and every thread."""
    started, popen = [], subprocess.Popen

    def counted(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", counted)
    before = threading.active_count()
    yield started
    assert all(process.returncode is not None for process in started)
    assert all(process.stdin.closed and process.stdout.closed for process in started)
    assert threading.active_count() == before


@pytest.mark.parametrize("hold", [0, 20])
def test_each_face_gets_its_own_answer(hold):
    items = list(enhanced(faces(150), command(INVERT, "{size}", hold), SIZE))
    assert [number for number, _ in items] == list(range(150))
    for number, face in items:
        assert face.shape == (SIZE, SIZE, 3) and (face == 255 - number).all()


def test_frames_without_a_face_keep_their_place():
    items = list(enhanced(faces(300, every=3), command(INVERT, "{size}", 20), SIZE))
    assert [number for number, _ in items] == list(range(300))
    for number, face in items:
        assert face is None if number % 3 else (face == 255 - number % 256).all()


def test_a_mask_is_kept_from_the_command():
    face = np.dstack([np.full((8, 8, 3), 40, np.uint8), np.full((8, 8), 77, np.uint8)])
    ((_, answer),) = enhanced(iter([("a", face)]), command(INVERT, "{size}", 0), SIZE)
    assert answer.shape == (SIZE, SIZE, 4)
    assert (answer[..., :3] == 215).all() and (answer[..., 3] == 77).all()


def test_faces_are_scaled_to_the_size_that_was_asked_for():
    ((_, face),) = enhanced(faces(1), command(INVERT, "{size}", 0), 16)
    assert face.shape == (16, 16, 3) and (face == 255).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (command(DIES), "exit code 1.*no such weights"),
        (command(HALF), "ended early .exit code 0"),
        (command("pass"), "ended early .exit code 0"),
        ("/nowhere/restorer --fast", "cannot be started.*No such file"),
        ("unbalanced 'quote", "cannot be started"),
        ("  ", "cannot be started"),
    ],
)
@pytest.mark.parametrize("count", [4, 1000])
def test_a_command_that_fails_is_one_line(text, words, count):
    with pytest.raises(InputError, match=words) as caught:
        list(enhanced(faces(count), text, SIZE))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "size", "count"),
    [
        (SWALLOWS, SIZE, 1000),  # it takes all that there is room for
        (IDLE, 64, 1000),  # the pipe is full before the queue is
        (IDLE, SIZE, 4),  # nothing more is to come
    ],
)
def test_a_command_that_never_answers_is_one_line(code, size, count, monkeypatch):
    monkeypatch.setattr("lipsync.enhance.SILENCE", 0.5)
    with pytest.raises(InputError, match="gave no face for 0.5 s.*64 at most.*python") as caught:
        list(enhanced(faces(count), command(code), size))
    assert str(caught.value).startswith("--enhance")


def test_what_a_script_has_started_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr("lipsync.enhance.SILENCE", 0.5)
    script = f"(sleep 5; touch {tmp_path}/late); true"  # they hold the full pipe
    with pytest.raises(InputError, match="gave no face"):
        list(enhanced(faces(1000), shlex.join(["sh", "-c", script]), 64))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("slow", ["source", "reader"])
def test_only_the_commands_own_silence_counts(slow, monkeypatch, nothing_stays):
    """It holds faces back and they come slowly, or nobody takes its answers: for the time of either
    it is allowed no silence at all.
    """

    def source():
        for number, face in faces(300):
            yield number, face
            if slow == "source" and number == 20:
                monkeypatch.setattr("lipsync.enhance.SILENCE", 0)
                time.sleep(0.5)
                monkeypatch.setattr("lipsync.enhance.SILENCE", 300)

    items = enhanced(source(), command(INVERT, "{size}", 40), SIZE)
    for number, (got, _) in enumerate(items):
        assert got == number
        if slow == "reader" and number == 10:
            time.sleep(0.5)
            assert select.select([nothing_stays[0].stdout], [], [], 60)[0]
        if slow == "reader":
            monkeypatch.setattr("lipsync.enhance.SILENCE", 0 if number == 10 else 300)
    assert number == 299


def test_a_fault_of_the_faces_is_raised_where_they_are_used():
    def broken():
        yield from faces(5)
        raise InputError("the video is damaged")

    with pytest.raises(InputError, match="the video is damaged"):
        list(enhanced(broken(), command(INVERT, "{size}", 2), SIZE))


@pytest.mark.parametrize("hold", [0, 40])
@pytest.mark.parametrize("every", [1, 10**9])
def test_a_reader_that_stops_early_ends_the_command(hold, every, nothing_stays):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield from faces(1) if number % every == 0 else [(number, None)]

    stream = enhanced(endless(), command(INVERT, "{size}", hold), SIZE)
    for _ in range(3):
        next(stream)
    stream.close()
    assert nothing_stays[0].returncode is not None
    assert len(taken) < 10**6  # it did not read on for ever
