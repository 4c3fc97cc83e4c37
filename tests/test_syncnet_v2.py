import json

import cv2
import numpy as np
import pytest
import torch
from conftest import GOLDEN, Poison
from fill import fill

from audio import load_wav
from errors import InputError
from experts.offset import SyncNetV2, clip_offset, load_expert, offset_of, slide
from hparams import HParams
from models import create_model
from models.syncnet_v2 import mfcc, mfcc_windows

golden = np.load(GOLDEN / "lse_public.npz")


def test_released_keys_and_shapes():
    released = json.loads((GOLDEN / "state_dicts.json").read_text())["SyncNet_v2"]
    state = create_model("SyncNet_v2").state_dict()
    assert [(key, list(value.shape)) for key, value in state.items()] == list(released.items())


def test_mfcc_meets_the_golden_values_and_windows_begin_every_four_columns():
    coefficients = mfcc(golden["wav"])
    np.testing.assert_allclose(coefficients.T, golden["mfcc"], atol=1e-6)
    windows = mfcc_windows(coefficients, 25)
    assert windows.shape == (25, 1, 13, 20) and windows.dtype == np.float32
    np.testing.assert_array_equal(windows[7, 0], coefficients[:, 28:48].astype(np.float32))


def test_lse_meets_the_golden_scores():
    expert = SyncNetV2(fill(create_model("SyncNet_v2")).eval(), "")
    frames = int(golden["T"]), 224, 224, 3
    rng = np.random.default_rng(int(golden["seed"]))
    frames = rng.integers(0, 256, frames, dtype=np.uint8)
    lips = expert.embed_lips(frames, batch_size=10)
    assert lips.shape == (26, 1024) and expert.embed_sound(golden["wav"], 25).shape == (25, 1024)
    for vshift in (10, 15):
        offset, confidence, distance = golden[f"vshift{vshift}"]
        found = expert.offset(lips, golden["wav"], vshift, whole=True)
        assert found.offset == offset  # below: a difference of two numbers ~1000
        assert found.confidence == pytest.approx(confidence, abs=2e-3)
        assert found.distance == pytest.approx(distance, rel=1e-5)


def test_a_long_input_gives_what_its_windows_give():
    model = fill(create_model("SyncNet_v2", width=0.125)).eval()
    frames = torch.rand(1, 3, 8, 224, 224) * 255
    with torch.no_grad():
        whole = model.forward_lip(frames)
        single = torch.cat([model.forward_lip(frames[:, :, i : i + 5]) for i in range(4)])
        both = model.forward_lip(torch.cat([frames, frames.flip(2)]))  # two clips in a batch
        reverse = model.forward_lip(frames.flip(2))
    torch.testing.assert_close(whole, single, atol=1e-3, rtol=1e-4)  # values reach 100
    torch.testing.assert_close(both, torch.cat([whole, reverse]), atol=1e-3, rtol=1e-4)


def lse(lips, sound, vshift=15):
    found = offset_of(slide(lips, sound, 0, vshift, published=True))
    return found.offset, found.confidence, found.distance


@pytest.mark.parametrize("shift", [-15, -4, 0, 7])
def test_offset_has_syncnets_sign(shift):
    lips = np.random.default_rng(0).standard_normal((60, 16)).astype(np.float32)
    sound = np.roll(lips, shift, axis=0)  # what belongs to frame f is heard at frame f + shift
    offset, confidence, distance = lse(lips, sound)
    assert offset == -shift  # positive: the sound is early
    still = np.linalg.norm(lips, axis=1)
    # eps is added to every one of the 16 differences; where the sound has rolled out there is none
    missing = still[60 - shift :] if shift >= 0 else still[:-shift]
    assert distance == pytest.approx(missing.sum() / 60, abs=1e-4)
    assert confidence > 3


def test_the_end_is_padded_with_zeros_as_released():
    lips, sound = np.full((6, 4), 2.0, np.float32), np.full((6, 4), 5.0, np.float32)
    offset, confidence, distance = lse(lips, sound, vshift=2)
    # distance 6 where both are there, 4 to a zero vector: (4 * 6 + 2 * 4) / 6 at a shift of 2
    assert distance == pytest.approx(32 / 6, abs=1e-4)
    assert offset == 2 and confidence == pytest.approx(34 / 6 - 32 / 6, abs=1e-4)


def test_too_little_is_refused():
    expert = SyncNetV2(create_model("SyncNet_v2", width=0.125).eval(), "")
    assert expert.hears(75 * 640 - 1) == 69  # one window fewer than there are, as released
    lips = expert.embed_lips(np.zeros((5, 224, 224, 3), np.uint8))
    for few in (lips, lips[:0], expert.embed_lips([])):
        with pytest.raises(InputError, match="too short for an offset"):
            expert.offset(few, np.zeros(9000, np.int16), whole=True)


def test_both_kinds_of_expert_are_told_apart(tmp_path, preprocessed_root):
    folder = str(preprocessed_root / "s0000/00001")
    for name in ("SyncNet_color", "SyncNet_v2"):
        path, model = tmp_path / f"{name}.pth", create_model(name, width=0.125)
        described = {"name": name, "width": 0.125}
        torch.save({"state_dict": model.state_dict(), "model": described}, path)
        expert = load_expert(path, "cpu")
        assert (expert.kind, expert.label[:-12]) == (name, f"{name}.pth ")
        assert not expert.model.training
        found = clip_offset(expert, folder, HParams())
        assert -15 <= found.offset <= 15 and found.confidence >= 0
    paths = sorted(preprocessed_root.glob("s0000/00001/*.jpg"), key=lambda path: int(path.stem))
    assert len(paths) == 50  # no gap: the scores are those of the whole clip, as released
    frames = np.stack([cv2.resize(cv2.imread(str(path)), (224, 224)) for path in paths])
    wav = np.round(load_wav(f"{folder}/audio.wav") * 32768).astype(np.int16)
    whole = expert.offset(expert.embed_lips(frames), wav, whole=True)
    np.testing.assert_allclose(found.curve, whole.curve, atol=1e-3)


def test_released_syncnet_v2_file_is_a_bare_state_dict(tmp_path):
    state = create_model("SyncNet_v2").state_dict()
    torch.save(state, tmp_path / "syncnet_v2.model", _use_new_zipfile_serialization=False)
    assert load_expert(tmp_path / "syncnet_v2.model", "cpu").kind == "SyncNet_v2"


def test_other_files_are_no_expert(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"state_dict": create_model("Wav2Lip", width=0.125).state_dict()}, path)
    with pytest.raises(InputError, match="an expert is a SyncNet_color or.*looks like a Wav2Lip"):
        load_expert(path, "cpu")
    torch.save({"state_dict": {"netcnnlip.0.weight": torch.zeros(1)}}, path)
    with pytest.raises(InputError, match="is not a SyncNet_v2"):
        load_expert(path, "cpu")
    path.write_text("<!DOCTYPE html>")
    with pytest.raises(InputError, match="web page"):
        load_expert(path, "cpu")
    torch.save({"state_dict": {"netcnnlip.0.weight": Poison(str(tmp_path / "ran"))}}, path)
    with pytest.raises(InputError, match="refused"):
        load_expert(path, "cpu")
    assert not (tmp_path / "ran").exists()
