"""Live mode: the frames are the offline ones, whatever the face is and however sound comes."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from conftest import GOLDEN

from errors import InputError
from lipsync.engine import LipSync
from media.read import iter_frames, load_audio
from realtime import LipSyncStream

FOLDER = GOLDEN / "inference"
FACE, VIDEO, SPEECH = (str(FOLDER / name) for name in ("face.png", "face25.mkv", "speech.wav"))
CASES = {
    "image": (FACE, {"box": (40, 200, 60, 190)}),
    "image30": (FACE, {"box": (40, 200, 60, 190), "fps": 30.0}),
    "video": (VIDEO, {"box": (30, 170, 40, 150)}),
    "bounce": (VIDEO, {"box": (30, 170, 40, 150), "pad": "bounce"}),
    "hold": (VIDEO, {"box": (30, 170, 40, 150), "pad": "hold", "paste": "hard"}),
    "static": (VIDEO, {"box": (30, 170, 40, 150), "static": True}),
}


@pytest.fixture(scope="module")
def lipsync(weights):
    return LipSync(weights, device="cpu")


@pytest.mark.parametrize("case", CASES)
def test_frames_are_those_of_offline_inference(lipsync, tmp_path, case):
    face, options = CASES[case]
    out = str(tmp_path / "out.mkv")
    lipsync.run(face, SPEECH, out, **options)
    assert face == FACE or len(list(iter_frames(VIDEO))) < 18  # a video is played again
    offline = [frame for _, frame in iter_frames(out)]
    pcm = np.round(load_audio(SPEECH) * 32768).astype(np.int16)
    with LipSyncStream(lipsync, face, **options) as stream:
        live = [frame for part in np.array_split(pcm, 31) for frame in stream.feed(part)]
        live += stream.flush()
    assert len(live) == len(offline)
    for frame, expected in zip(live, offline, strict=True):
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - expected).max() <= 1


def test_close_ends_the_threads(lipsync):
    before = threading.active_count()
    stream = LipSyncStream(lipsync, VIDEO, box=CASES["video"][1]["box"])
    assert threading.active_count() == before + 1
    stream.close()
    assert threading.active_count() == before


def test_a_frame_without_a_face_passes(weights, tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"boxes": [[40, 30, 150, 170]] * 3 + [None] * 50}))
    lipsync = LipSync(weights, "cpu", "boxes", {"path": str(path)})
    source = [frame for _, frame in iter_frames(VIDEO)]
    with LipSyncStream(lipsync, VIDEO, no_face="pass") as stream:
        frames = stream.feed(load_audio(SPEECH))
    for index, frame in enumerate(frames):
        shown = index % len(source)
        assert (frame == source[shown]).all() == (shown >= 3)


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_other_rates_and_channels(rate):
    """The windows are those of the sound that offline inference resamples."""
    from live.stream import _Resampler, as_float

    seconds = np.arange(round(1.3 * rate)) / rate
    wav = (0.4 * np.sin(2 * np.pi * 300 * seconds)).astype(np.float32)
    stereo = np.stack([wav, wav], 1)
    resampler = _Resampler(rate)
    parts = [resampler.feed(as_float(p).mean(axis=1)) for p in np.array_split(stereo, 57)]
    out = np.concatenate([*parts, resampler.flush()])
    expected = 0.4 * np.sin(2 * np.pi * 300 * np.arange(len(out)) / 16000)
    assert abs(len(out) - 1.3 * 16000) <= 2
    assert np.abs(out - expected)[200:-200].max() < 0.01  # no shift: 300 Hz would show it


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"silence_gate": -40.0}, "silence_gate"),
        ({"enhance": "cat"}, "enhance"),
        ({"faithful": True}, "faithful"),
        ({"pad": "stretch"}, "stretch"),
        ({"sample_rate": 10}, "10 Hz"),
    ],
)
def test_what_a_stream_cannot_do(lipsync, options, word):
    with pytest.raises(InputError, match=word):
        LipSyncStream(lipsync, FACE, box=CASES["image"][1]["box"], **options)


def test_sound_of_another_kind(lipsync):
    with LipSyncStream(lipsync, FACE, box=CASES["image"][1]["box"]) as stream:
        with pytest.raises(InputError, match="int16 or float32"):
            stream.feed(np.zeros(100))
        with pytest.raises(InputError, match="finite"):
            stream.feed(np.full(100, np.nan, np.float32))
        assert stream.feed(np.zeros(0, np.int16)) == [] and stream.flush() == []


def test_live_takes_int8_that_is_kept_and_nothing_else_does(weights, tmp_path, monkeypatch):
    pytest.importorskip("nncf")
    kept, out, box = tmp_path / "kept", str(tmp_path / "a.mkv"), CASES["image"][1]["box"]
    with LipSyncStream(LipSync(weights, "cpu", cache_dir=kept), FACE, box=box) as stream:
        assert ", float32, " in stream.describe()  # none is there yet
    LipSync(weights, "cpu", int8=True, cache_dir=kept).run(FACE, SPEECH, out, box=box)
    monkeypatch.setattr("backends.quantize._calibrated", None)
    lipsync = LipSync(weights, "cpu", cache_dir=kept)
    with LipSyncStream(lipsync, FACE, box=box) as stream:
        assert ", int8, " in stream.describe()
    assert ", float32, " in lipsync.backend.describe()  # of inference.py, which was not asked
    (network,) = kept.glob("*-whole-int8/network.bin")
    network.write_bytes(b"damaged")
    with LipSyncStream(LipSync(weights, "cpu", cache_dir=kept), FACE, box=box) as stream:
        assert ", float32, " in stream.describe()
