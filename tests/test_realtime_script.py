"""realtime.py as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import av
import numpy as np
import pytest
from conftest import GOLDEN, REPOSITORY, assert_refused, run_script

from media.read import iter_frames, load_audio

FOLDER = GOLDEN / "inference"
FACE, VIDEO, SPEECH = (str(FOLDER / name) for name in ("face.png", "face25.mkv", "speech.wav"))


def command(weights, *extra, face=FACE, audio=SPEECH):
    box = ("--box", "40", "200", "60", "190")
    argv = ("--checkpoint_path", weights, "--face", face, "--audio", audio, *box, *extra)
    return [sys.executable, str(REPOSITORY / "realtime.py"), *map(str, argv)]


def live(weights, *extra, **keywords):
    audio = {"audio": keywords.pop("audio", SPEECH)}
    argv = command(weights, *extra, **audio)
    return subprocess.run(argv, capture_output=True, timeout=600, cwd=REPOSITORY, **keywords)


def test_file_with_report(weights, tmp_path):
    out, report = tmp_path / "out.mp4", tmp_path / "report.json"
    result = live(weights, "--outfile", out, "--report", report)
    assert result.returncode == 0 and not result.stdout, result.stderr
    seen = json.loads(report.read_text())
    seconds = len(load_audio(SPEECH)) / 16000
    assert seen["audio_seconds"] == pytest.approx(seconds)
    assert seen["frames"] == round(25 * seconds) and abs(seen["drift"]) < 0.021
    assert set(seen["latency_ms"]) == {"p50", "p95", "p99", "max"}
    with av.open(str(out)) as container:
        video, audio = (float(s.duration * s.time_base) for s in container.streams)
    assert abs(video - audio) <= 1 / 25
    assert sorted(os.listdir(tmp_path)) == ["out.mp4", "report.json"]


def test_raw_pixels_from_standard_input(weights):
    pcm = np.round(load_audio(SPEECH) * 32767).astype("<i2")
    result = live(weights, "--outfile", "-", "--format", "raw", "--seconds", "0.4",
                  audio="-", input=pcm.tobytes())  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) == 10 * 256 * 256 * 3
    assert b"10 frames" in result.stderr


def test_a_closed_pipe_ends_quietly(weights):
    argv = command(weights, "--outfile", "-")
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert len(process.stdout.read(1000)) == 1000
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 0, errors
    assert b"Traceback" not in errors and b"error" not in errors
    process.stderr.close()


def test_interruption_finishes_the_file(weights, tmp_path):
    out = tmp_path / "out.mp4"
    argv = command(weights, "--outfile", out, audio="-")
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr.readline() == b"ready\n"
    process.stdin.write(np.zeros(16000, "<i2").tobytes())
    process.stdin.flush()
    threading.Event().wait(1.5)  # standard input stays open: only the signal can end it
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 0, errors
    assert len(list(iter_frames(out))) > 0
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_bad_input_is_refused(weights, tmp_path):
    picture, text = str(tmp_path / "grey.png"), tmp_path / "text.wav"
    import cv2

    cv2.imwrite(picture, np.full((64, 64, 3), 128, np.uint8))
    text.write_text("not sound")
    out = tmp_path / "out.mp4"

    def refused(*words, **changes):
        flags = {"face": FACE, "audio": SPEECH, "outfile": out} | changes
        argv = [part for name, value in flags.items() for part in (f"--{name}", value)]
        result = run_script("realtime.py", "--checkpoint_path", weights, *argv)
        assert_refused(result, *words)
        assert sorted(os.listdir(tmp_path)) == ["grey.png", "text.wav"]

    refused("face not found", face=tmp_path / "none.png")
    refused("no face found", face=picture)
    refused("text.wav", audio=text)
    refused("audio not found", audio=tmp_path / "none.wav")
    refused("ends in .mp4", outfile=tmp_path / "out.txt")
    refused("at least 8", fps=5)
    refused("--silence_gate", silence_gate=-40)


def test_empty_standard_input(weights, tmp_path):
    result = live(weights, "--outfile", tmp_path / "o.mp4", audio="-", input=b"")
    assert result.returncode == 2 and b"no sound came" in result.stderr
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("flag", ["reference", "s3fd_weights", "boxes", "int8_speech"])
@pytest.mark.parametrize("output", ["outfile", "report"])
def test_no_output_replaces_an_input(weights, tmp_path, flag, output):
    given = tmp_path / "given.mp4"  # of any content: nothing is read
    given.write_bytes(b"precious")
    argv = command(weights, f"--{flag}", given, f"--{output}", given)[2:]
    assert_refused(run_script("realtime.py", *argv), "would replace")
    assert given.read_bytes() == b"precious" and os.listdir(tmp_path) == ["given.mp4"]
