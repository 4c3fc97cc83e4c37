import json
import zlib
from unittest.mock import patch

import cv2
import numpy as np
import pytest

from audio import melspectrogram, save_wav
from corpus.listing import find_clips
from preparation.doctor import examine
from preparation.doctor_hint import MIN_CLIPS, hint_sums, mouth_motion, pool_hint, sound_level
from preparation.doctor_measure import measure_clip

SECONDS = 1.2
SIDE = 96  # of the crops, so that nothing is resized


def sine(amplitude=0.5, seconds=SECONDS, hertz=440):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)


def voice(seed, seconds=SECONDS):
    """Another tone, as loud as it will, every 50 ms: as much in motion as speech is."""
    rng = np.random.default_rng(seed)
    time, steps = np.arange(800) / 16000, round(seconds / 0.05)
    tones = rng.uniform(0.05, 0.5, (steps, 1)) * np.sin(
        2 * np.pi * rng.uniform(100, 6000, (steps, 1)) * time
    )
    return tones.ravel() + rng.normal(0, 0.002, steps * 800)


def picture(seed=0, frame=0):
    """A smooth random picture that differs from frame to frame."""
    rng = np.random.default_rng([seed, frame])
    return cv2.resize(rng.integers(40, 216, (24, 24, 3), np.uint8), (SIDE, SIDE))


def make_clip(root, name, wav=None, frames=30, draw=None, **record):
    """A preprocessed clip by hand: draw(frame) -> uint8 BGR picture."""
    folder = root / name
    folder.mkdir(parents=True)
    wav = voice(len(list(root.rglob("clip.json")))) if wav is None else wav
    for frame in range(frames):
        image = picture(zlib.crc32(name.encode()), frame) if draw is None else draw(frame)
        cv2.imwrite(str(folder / f"{frame}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
    save_wav(wav, folder / "audio.wav")
    np.save(folder / "mel.npy", melspectrogram(np.asarray(wav, np.float32)).T)
    record = {
        "source": f"/videos/{name}.mp4", "fps": 25, "frames": frames, "faces": frames,
        "seconds": len(wav) / 16000, "boxes": [[10, 10, 10 + SIDE, 20 + SIDE]] * frames,
    } | record  # fmt: skip
    (folder / "clip.json").write_text(json.dumps(record))
    return folder


def examined(root, out, *args, **kwargs):
    """examine's report, without the time that its picture takes."""
    with patch("preparation.doctor_plot.plot"):
        return examine(str(root), str(out), *args, **kwargs)


def measured(root, name, hint=False):
    from hparams import HParams

    return measure_clip(str(root), name, HParams(), hint)


def test_sound_closed_forms(tmp_path):
    make_clip(tmp_path, "a/sine", sine(0.5))
    clip = measured(tmp_path, "a/sine")
    assert clip.seconds == SECONDS and clip.clipped_share == clip.silence_share == 0
    assert clip.speech_db == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.01)
    assert clip.peak_db == pytest.approx(20 * np.log10(0.5), abs=0.01)
    make_clip(tmp_path, "a/clipped", np.clip(sine(2.0, hertz=37), -1, 1))
    clip = measured(tmp_path, "a/clipped")
    assert clip.clipped_share == pytest.approx(1 - 2 / np.pi * np.arcsin(0.5), abs=0.01)
    assert clip.peak_db == pytest.approx(0, abs=0.01)
    make_clip(tmp_path, "a/half", np.append(sine(0.5, 0.6), np.zeros(9600)))
    clip = measured(tmp_path, "a/half")
    assert clip.silence_share == pytest.approx(0.5)
    assert clip.speech_db == pytest.approx(-9.03, abs=0.01)
    make_clip(tmp_path, "a/dc", sine(0.3) + 0.1)
    assert measured(tmp_path, "a/dc").dc == pytest.approx(0.1, abs=1e-3)
    make_clip(tmp_path, "a/silent", np.zeros(int(16000 * SECONDS)))
    clip = measured(tmp_path, "a/silent")
    assert clip.silence_share == 1 and clip.speech_db is None and clip.sound_vector is None
    report = examined(tmp_path, tmp_path / "out")
    shares = {"clipped": 0.2, "dc": 0.2, "silent": 0.2, "quiet": 0.0, "sound_short": 0.0}
    assert {name: report["summary"]["shares"][name] for name in shares} == shares


def test_pictures_closed_forms(tmp_path):
    make_clip(tmp_path, "a/grey", draw=lambda frame: np.full((SIDE, SIDE, 3), 80, np.uint8))
    clip = measured(tmp_path, "a/grey")
    assert clip.brightness == pytest.approx(80) and clip.change == clip.sharpness == 0
    assert clip.picture_vector is None and clip.look_vector is None  # nothing to compare
    halves = np.full((SIDE, SIDE, 3), 0, np.uint8)
    halves[SIDE // 2 :] = 255
    make_clip(tmp_path, "a/halves", draw=lambda frame: halves)
    clip = measured(tmp_path, "a/halves")
    assert (clip.dark_share, clip.bright_share) == pytest.approx((0.5, 0.5), abs=0.01)
    # an edge of height h gives +h and -h in two of the 96 rows
    assert clip.sharpness == pytest.approx(2 * 255**2 / SIDE, rel=0.02)
    grain = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    make_clip(tmp_path, "a/sharp", draw=lambda frame: grain)
    make_clip(tmp_path, "a/blurred", draw=lambda frame: cv2.GaussianBlur(grain, (0, 0), 2.5))
    assert measured(tmp_path, "a/sharp").sharpness > 50 > measured(tmp_path, "a/blurred").sharpness
    shares = examined(tmp_path, tmp_path / "out")["summary"]["shares"]
    assert shares["still"] == 1 and shares["burnt_out"] == 0.25 and shares["blurred"] == 0.5


def test_faces_from_the_boxes(tmp_path):
    boxes = [[0, 0, 40, 60]] * 10 + [None] * 10 + [[100, 0, 140, 60]] * 10 + [[0, 0, 40, 60]] * 10
    folder = make_clip(tmp_path, "a/1", frames=40, boxes=boxes, other_faces=10, fps=30)
    for frame in range(10, 20):
        (folder / f"{frame}.jpg").unlink()
    clip = measured(tmp_path, "a/1")
    assert (clip.face_size, clip.faces_share, clip.other_faces_share) == (40, 0.75, 0.25)
    assert clip.jumps == 1  # what happens while no face is seen does not count
    assert not clip.problems
    # windows start at 0..5 and 20..35, as far as 1.2 s of sound go
    assert (clip.windows_expert, clip.windows_generator) == (12, 8)
    report = examined(tmp_path, tmp_path / "out")
    assert {"small_face", "jumping", "faceless", "fps"} <= {f["code"] for f in report["findings"]}


def test_near_negatives(tmp_path):
    make_clip(tmp_path, "a/1", voice(0, 2.0), frames=25)  # 21 windows
    # of 21 * 20 wrong pairs, 20 + 19 are off by 1 or 2, either way
    assert measured(tmp_path, "a/1").near_negatives == pytest.approx(2 * 39 / 420)


# --- the hint


def test_hint_finds_the_common_shift_and_its_sign():
    rng = np.random.default_rng(0)

    def clips(early, related=1.0, count=MIN_CLIPS):
        for _ in range(count):
            level = rng.normal(0, 1, 130)
            mouth = related * level + rng.normal(0, 2, 130)
            yield hint_sums(mouth[30:100], level[30 + early : 100 + early])  # heard too early

    for early in (0, 5, -7):
        found = pool_hint(list(clips(early)), seed=0)
        assert found["reliable"] and abs(found["offset"] - early) <= 1
    assert not pool_hint(list(clips(0, related=0)), seed=0)["reliable"]
    assert pool_hint(list(clips(0, count=MIN_CLIPS - 1)), seed=0) is None


def test_hint_on_the_pixels_of_synthetic_clips(preprocessed_root):
    from corpus.clips import index_clip
    from hparams import HParams

    found = {}
    for rows in (0, 16):  # 5 frames
        sums = []
        for name in find_clips(str(preprocessed_root)):
            folder = str(preprocessed_root / name)
            motion = mouth_motion(index_clip(folder, HParams(), individual_mels=False))
            mel = np.load(f"{folder}/mel.npy")[rows:]  # the sound comes earlier
            sums += [hint_sums(motion, sound_level(mel, len(motion)))] * 3
        found[rows] = pool_hint(sums, seed=0)["offset"]
    assert abs(found[0]) <= 1 and abs(found[16] - 5) <= 1
