import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import GOLDEN, REPOSITORY
from scipy.io import wavfile

import audio
from datasets import get_segmented_mels
from errors import InputError


@pytest.mark.parametrize("case", range(4))
def test_mel_meets_the_golden_values(case):
    golden = np.load(GOLDEN / "audio_public.npz")
    mel = audio.melspectrogram(golden[f"wav{case}"].astype(np.float32) / 32768)
    assert mel.dtype == np.float32
    np.testing.assert_allclose(mel, golden[f"mel{case}"], atol=1e-4)


def test_mel_bands_and_loudness_are_librosa_s():
    librosa = pytest.importorskip("librosa")
    ours = audio._mel_basis(16000, 800, 80, 55.0, 7600.0)
    theirs = librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)
    np.testing.assert_allclose(ours, theirs, atol=1e-7)
    wav = np.random.default_rng(0).normal(0, 0.1, 4321).astype(np.float32)
    frames = audio._frames(wav, 800, 200, "constant")
    rms = librosa.feature.rms(y=wav, frame_length=800, hop_length=200)[0]
    np.testing.assert_allclose(np.sqrt(np.mean(frames**2, axis=1)), rms, atol=1e-6)


def test_silence_is_the_floor_and_loudness_is_bounded():
    assert (audio.melspectrogram(np.zeros(4000, np.float32)) == -4).all()
    noise = np.random.default_rng(0).uniform(-1, 1, 16000) * 1000
    assert audio.melspectrogram(noise).max() == 4


def test_eighty_rows_a_second():
    assert audio.melspectrogram(np.zeros(16000, np.float32)).shape == (80, 81)


def test_too_short_for_a_spectrogram():
    with pytest.raises(InputError, match="too short"):
        audio.melspectrogram(np.zeros(400, np.float32))


def test_preemphasis_closed_form():
    np.testing.assert_allclose(audio.preemphasis(np.array([1.0, 1.0, 3.0]), 0.5), [1, 0.5, 2.5])


def test_wav_round_trip(tmp_path, tone):
    audio.save_wav(tone, tmp_path / "a.wav")
    rate, pcm = wavfile.read(tmp_path / "a.wav")
    assert (rate, pcm.dtype) == (16000, np.int16)
    np.testing.assert_allclose(audio.load_wav(tmp_path / "a.wav"), tone, atol=0.5 / 32768 + 1e-7)


def test_loud_samples_are_clipped_not_wrapped(tmp_path):
    audio.save_wav(np.array([2.0, -2.0, 0.0]), tmp_path / "a.wav")
    assert wavfile.read(tmp_path / "a.wav")[1].tolist() == [32767, -32768, 0]


def test_chunk_starts_meet_the_golden_values():
    for case in json.loads((GOLDEN / "mel_chunks.json").read_text()):
        assert audio.chunk_starts(case["mel_frames"], case["fps"]) == case["starts"], case["fps"]


def test_default_chunks_last_as_long_as_the_speech():
    wav = np.random.default_rng(0).uniform(-0.1, 0.1, 16000 * 2 + 320).astype(np.float32)
    chunks = audio.speech_chunks(wav, 25, faithful=False)
    assert len(chunks) == round(2.02 * 25)
    assert {chunk.shape for chunk in chunks} == {(80, 16)}
    assert len(audio.speech_chunks(wav, 25, faithful=True)) < len(chunks)
    assert (chunks[0][:, 0] == -4).all()  # before the speech there is silence


def test_default_chunks_are_the_training_windows():
    """Released inference begins each window a frame later than training did; ours does not."""
    wav = np.random.default_rng(0).uniform(-0.1, 0.1, 16000 * 2).astype(np.float32)
    mel = audio.melspectrogram(wav)
    chunks, released = (audio.speech_chunks(wav, 25, faithful) for faithful in (False, True))
    for frame in range(2, 40):  # before that, reflected padding against silence
        trained = get_segmented_mels(mel.T, frame, length=1)[0].T
        np.testing.assert_allclose(chunks[frame], trained, atol=1e-4)
        np.testing.assert_array_equal(released[frame - 1], trained)


def test_speech_shorter_than_a_window():
    wav = np.zeros(1600, np.float32)
    assert len(audio.speech_chunks(wav, 25, faithful=False)) == 2
    with pytest.raises(InputError, match="shorter than one mel window"):
        audio.speech_chunks(wav, 25, faithful=True)


def test_the_silence_gate_rests_the_mouth_in_pauses_only(tone):
    """A pause of half a second, one too short to count, one at the end; -63 dBFS of noise."""
    wav = np.concatenate([tone, np.zeros(8000), tone[:4000], np.zeros(3200), tone[:4000],
                          np.zeros(1600)]).astype(np.float32)  # fmt: skip
    wav += np.random.default_rng(0).normal(0, 0.0007, len(wav)).astype(np.float32)
    rows = len(wav) // 200 + 1
    expected = np.zeros(rows, bool)
    expected[82:119] = True  # 16000 and 24000 in steps of 200, less half a spectrum's 800
    expected[178:] = True  # from 35200 + 400 on, though it has fewer than 16 rows
    np.testing.assert_array_equal(audio.quiet_rows(wav, rows, -45), expected)
    plain, gated = (audio.speech_chunks(wav, 25, False, silence_gate=g) for g in (None, -45))
    assert (gated[31] == -4).all() and (plain[31] > -4).any()  # rows 96..112
    for frame in (*range(2, 20), 39, 42):
        np.testing.assert_array_equal(gated[frame], plain[frame])


def test_no_other_thread_works_on_the_spectrogram():
    """OpenBLAS' would spin on afterwards, which in live mode takes the network's processor."""
    code = """
import time
import numpy as np
from audio import melspectrogram
wav = np.zeros(16 * 320, np.float32)
melspectrogram(wav)
shares = []
for _ in range(3):  # the best: something else of the process may be at work once
    everybody, own = time.process_time(), time.thread_time()
    for _ in range(300):
        melspectrogram(wav)
    shares.append((time.process_time() - everybody) / (time.thread_time() - own))
assert min(shares) < 1.3, shares
"""
    environment = os.environ | {"OMP_NUM_THREADS": "4", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
