"""Any input: each row is a face and an audio, made into a video of the right length or refused
with one line. The table of outcomes is shown at the end of the test run.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from conftest import GOLDEN, INPUT_ROWS, REPOSITORY
from input_cases import AUDIOS, BOX, FACE, FACES, HARD, SECONDS, moving, tones, video
from read_cases import READS

from audio import save_wav
from errors import InputError
from lipsync.engine import LipSync
from media.picture import is_image
from media.read import audio_format, iter_audio, iter_frames, probe


@pytest.fixture(scope="module")
def lipsync(weights):
    return LipSync(weights, "cpu", backend="torch")


@pytest.fixture
def speech(tmp_path):
    return tones(tmp_path / "speech.wav")


def seconds_of(path):
    """Of the picture and of the sound."""
    with av.open(str(path)) as container:
        track = container.streams.audio[0]
        if track.duration:  # what AAC adds to fill its last frame is not to be heard
            return probe(path).duration, float(track.duration * track.time_base)
    return probe(path).duration, sum(c.shape[1] for c in iter_audio(path, 16000)) / 16000


def _tell(row, outcome):
    if row is not None:
        INPUT_ROWS.append((*row, outcome))


def check(lipsync, face, audio, expected, out, row=None, **options):
    """Run it: `expected` frames, or a refusal that says one of these words; nothing else made."""
    folder = out.parent
    folder.mkdir(exist_ok=True)
    before = set(os.listdir(folder))
    if isinstance(expected, str):
        with pytest.raises(InputError) as caught:
            lipsync.run(str(face), str(audio), str(out), **options)
        line = str(caught.value)
        assert any(word in line for word in expected.split("|")), line
        assert "\n" not in line and set(os.listdir(folder)) == before
        _tell(row, f"refused: {line.replace(str(folder.parent), '')}")
        return None
    summary = lipsync.run(str(face), str(audio), str(out), **options)
    assert set(os.listdir(folder)) == before | {out.name}
    picture_seconds, sound_seconds = seconds_of(out)
    assert abs(picture_seconds - sound_seconds) <= 1 / summary.fps
    assert summary.frames == (expected or round(SECONDS * summary.fps))
    assert probe(out).fps == pytest.approx(summary.fps, rel=1e-3)
    _tell(row, f"{summary.frames} frames at {summary.fps:.5g} fps")
    return summary


@pytest.mark.parametrize("name", FACES)
def test_faces(lipsync, tmp_path, speech, name):
    make, expected, options = FACES[name]
    face, out = tmp_path / name, tmp_path / "out" / "video.mp4"
    make(face)
    summary = check(lipsync, face, speech, expected, out, ("face", name), **options)
    if summary and not is_image(face):
        assert summary.fps == pytest.approx(options.get("fps") or probe(face).fps, rel=1e-3)
        size = (s + s % 2 for s in (probe(face).width, probe(face).height))
        assert (probe(out).width, probe(out).height) == tuple(size)
    if name.startswith("several"):  # the face that is meant is new, the other is as it was
        old, new = (next(iter_frames(path))[1].astype(int) for path in (face, out))
        changed = np.abs(new - old)[60:180].mean(axis=(0, 2))
        half = {"the second": None, "the right one": True}[name[15:-4]]
        left, right = changed[60:190].mean(), changed[322:452].mean()
        assert max(left, right) > 10 > 2 > min(left, right)
        assert half is None or (right > left) == half
    if name == "no face in some frames.mp4":
        assert summary.faceless == [(5, 14)]


@pytest.mark.parametrize("name", READS)
def test_reads(tmp_path, name):
    make, look, expected = READS[name]
    path = tmp_path / name
    make(path)
    if isinstance(expected, str) and expected.startswith("refused: "):
        with pytest.raises(InputError) as caught:
            look(path)
        line = str(caught.value)
        assert expected.removeprefix("refused: ") in line and "\n" not in line
        _tell(("read", name), f"refused: {line.replace(str(tmp_path), '')}")
    else:
        assert (found := look(path)) == expected
        _tell(("read", name), f"{getattr(look, '__name__', '')} {found}")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("two sounds, the second the default.mkv", "audio track 2 of 2 is used"),
        ("joined, a minute apart, heard.ts", "clock jumps by +59"),
        ("a rate that varies, slow.mkv", "its rate varies"),
        ("channels that cancel.wav", "channels cancel each other"),
    ],
)
def test_what_is_made_of_an_oddity_is_told_once(tmp_path, caplog, name, words):
    make, look, _ = READS[name]
    make(tmp_path / name)
    look(tmp_path / name), look(tmp_path / name)
    (line,) = caplog.messages
    assert words in line and name in line


@pytest.mark.parametrize("name", AUDIOS)
def test_audios(lipsync, tmp_path, name):
    make, expected = AUDIOS[name]
    face, audio = GOLDEN / "inference" / "face.png", tmp_path / name
    make(audio)
    check(lipsync, face, audio, expected, tmp_path / "out" / "video.mp4", ("audio", name), **BOX)


@pytest.mark.parametrize(
    ("rate", "channels", "kept"),
    [(44100, 2, (44100, 2)), (48000, 2, (48000, 2)), (44100, 1, (44100, 1)),
     (48000, 6, (48000, 2)), (16000, 1, (48000, 1)), (192000, 2, (48000, 2))],
)  # fmt: skip
def test_the_sound_is_the_source_s(lipsync, tmp_path, rate, channels, kept):
    audio, out = tones(tmp_path / "a.wav", rate, channels), tmp_path / "out" / "video.mp4"
    check(lipsync, GOLDEN / "inference" / "face.png", audio, 15, out, **BOX)
    assert audio_format(out) == kept
    was, now = (np.concatenate(list(iter_audio(path, *kept)), 1) for path in (audio, out))
    error = now[:, : was.shape[1]] - was
    assert np.abs(error).max() < 0.05 and (error**2).mean() < 1e-3 * (was**2).mean()


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_full_range_colours_keep_their_level(lipsync, tmp_path, speech, suffix):
    levels = [0, 20, 60, 128, 200, 240, 255]
    frame = np.concatenate([np.full((36, 256, 3), level, np.uint8) for level in levels])
    face = video(tmp_path / "full.mp4", [frame] * 3, fmt="yuvj420p", full=True, crf="1")
    out = tmp_path / "out" / f"video{suffix}"
    check(lipsync, face, speech, 15, out, box=(0, 252, 0, 100))
    for path in (face, out):
        _, shown = next(iter_frames(path))
        for number, level in enumerate(levels):
            patch = shown[36 * number + 8 : 36 * number + 28, 120:]
            assert patch.mean(axis=(0, 1)) == pytest.approx([level] * 3, abs=3)


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("speech.wav/out.mp4", "cannot write.*Not a directory"),
        ("/proc/out.mp4", "cannot write"),
        ("/dev/null/out.mp4", "cannot write"),
        ("out.avi", "ends in .mp4"),
        ("out", "ends in .mp4"),
        (".", "ends in .mp4"),
    ],
)
def test_outputs_that_cannot_be_written(lipsync, tmp_path, speech, out, words):
    with pytest.raises(InputError, match=words) as caught:
        face = str(GOLDEN / "inference" / "face.png")
        lipsync.run(face, str(speech), str(tmp_path / out), **BOX)
    assert os.listdir(tmp_path) == ["speech.wav"]
    INPUT_ROWS.append(("output", out, f"refused: {str(caught.value).replace(str(tmp_path), '')}"))


@pytest.mark.parametrize("what", ["face", "audio", "checkpoint", "boxes", "reference", "a link"])
def test_an_output_replaces_no_input(lipsync, tmp_path, speech, monkeypatch, what):
    given = str(tmp_path / "in.mp4")  # of any content: nothing is read
    tones(tmp_path / "in.mkv")
    os.replace(tmp_path / "in.mkv", given)
    before, out = Path(given).read_bytes(), given
    monkeypatch.setattr(lipsync, "files", [given] if what in ("checkpoint", "boxes") else [])
    if what == "a link":
        out = str(tmp_path / "link.mp4")
        os.symlink(given, out)
    face = given if what in ("face", "a link") else str(GOLDEN / "inference" / "face.png")
    options = {"reference": given} if what == "reference" else {}
    with pytest.raises(InputError, match="would replace") as caught:
        lipsync.run(face, given if what == "audio" else str(speech), out, **BOX, **options)
    assert Path(given).read_bytes() == before
    line = str(caught.value).replace(str(tmp_path), "")
    _tell(("output", f"is the {what}"), f"refused: {line}")


def test_a_silent_sound_rests_the_lips(lipsync, tmp_path, caplog):
    silence, out = tones(tmp_path / "silence.wav", level=0), tmp_path / "out" / "video.mkv"
    face = video(tmp_path / "face.mkv", moving(15), codec="ffv1", fmt="bgr0")
    references = []
    plain = lipsync.frames

    def watched(source, chunks, picks=None):
        references.append(source.reference)
        assert all((chunk == -4).all() for chunk in chunks)
        return plain(source, chunks, picks)

    lipsync.frames = watched
    try:
        check(lipsync, face, silence, 15, out, ("audio", "silence, a moving face"), **BOX)
    finally:
        del lipsync.frames
    assert references[0] is not None  # one face for all frames: nothing tells of its lips' moves
    assert "is silent" in caplog.text


def test_a_closeup_is_told(lipsync, tmp_path, speech, caplog):
    cv2.imwrite(str(tmp_path / "large.png"), cv2.resize(FACE, (1024, 1024)))
    box = {"box": tuple(4 * side for side in BOX["box"])}
    out = tmp_path / "out" / "video.mp4"
    row = ("face", "a closeup.png")
    check(lipsync, tmp_path / "large.png", speech, 15, out, row, **box)
    assert "6.7 times as large as the network's 96 pixels" in caplog.text


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_leaves_nothing(lipsync, tmp_path, speech, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, hard))  # Python ignores its signal
    try:
        with pytest.raises(InputError, match="cannot write.*too large") as caught:
            out = str(tmp_path / f"out{suffix}")
            lipsync.run(str(tmp_path / "noise.png"), str(speech), out, **BOX)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(tmp_path)) == ["noise.png", "speech.wav"]
    line = str(caught.value).replace(str(tmp_path), "")
    INPUT_ROWS.append(("output", f"full disk, {suffix}", f"refused: {line}"))


def started(weights, folder, seconds, **options):
    """inference.py on its own, in a folder of its own."""
    tones(folder / "speech.wav", seconds=seconds)
    argv = [sys.executable, str(REPOSITORY / "inference.py"), "--checkpoint_path", str(weights),
            "--face", str(GOLDEN / "inference" / "face.png"), "--audio", "speech.wav",
            "--box", "40", "200", "60", "190", "--outfile", "out/video.mkv", "--device", "cpu",
            "--backend", "torch"]  # fmt: skip
    return subprocess.Popen(argv, cwd=folder, text=True, stderr=subprocess.PIPE, **options)


def test_a_reader_of_its_output_that_is_gone(weights, tmp_path):
    read, write = os.pipe()
    os.close(read)
    process = started(weights, tmp_path, SECONDS, stdout=write)
    os.close(write)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (141, "")
    assert os.listdir(tmp_path / "out") == ["video.mkv"]
    INPUT_ROWS.append(("output", "broken pipe", "made; exit code 141"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(weights, tmp_path, number, code):
    process = started(weights, tmp_path, 300, stdout=subprocess.DEVNULL)
    while process.poll() is None and not any(tmp_path.glob("out/.*.part")):
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code and "Traceback" not in said, said
    assert os.listdir(tmp_path / "out") == []
    INPUT_ROWS.append(("output", signal.Signals(number).name, f"exit code {code}, nothing left"))


@pytest.mark.corpus
@pytest.mark.parametrize("name", HARD)
def test_real_clips(lipsync, corpus, tmp_path, name):
    speech = tmp_path / "speech.wav"
    save_wav(np.sin(np.arange(6400) / 12).astype(np.float32), speech)
    out = tmp_path / "out" / "video.mp4"
    options = {"det_every": 6}
    face, row = corpus / "hard" / name, ("real", name)
    if face.suffix in (".mp3", ".aac"):
        still = GOLDEN / "inference" / "face.png"
        check(lipsync, still, face, HARD[name], out, row, **BOX)
    else:
        check(lipsync, face, speech, HARD[name], out, row, **options)


@pytest.mark.corpus
def test_every_hard_clip_is_in_the_table(corpus):
    assert {path.name for path in (corpus / "hard").iterdir()} == set(HARD)
