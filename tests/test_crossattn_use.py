"""The second generator family in use: checkpoints, engines, pasting, training."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from conftest import assert_refused, train
from fill import fill, inputs
from test_backends import assert_close, samples
from test_crossattn import COMBINATIONS, batch, tiny
from test_training import metrics, weights

from backends.api import create_backend
from backends.torch import TorchBackend, fold_batch_norm
from errors import InputError
from hparams import HParams
from lipsync.paste import paste_face
from models import create_model
from models.checkpoint import (
    describe_model,
    load_generator,
    load_model,
    load_weights,
    save_checkpoint,
)
from training.check import overfit
from training.steps import create_mask_loss
from wav2lip_train import train_step


@pytest.fixture(scope="module", params=["torch", "openvino", "onnx"])
def engine(request):
    if request.param == "onnx":
        pytest.importorskip("onnxscript")
    pytest.importorskip({"onnx": "onnxruntime"}.get(request.param, request.param))
    kinds = COMBINATIONS[3 if request.param == "torch" else 0]  # the others convert slowly
    model = fill(tiny(*kinds)).eval()
    return create_backend(model, "cpu", request.param), model


def eager(model, faces, mels):
    """Face and mask of the model itself, as bytes (N, H, W, 4)."""
    pictures = torch.from_numpy(np.concatenate((faces, faces), axis=3)).permute(0, 3, 1, 2) / 255
    pictures[:, :3, faces.shape[1] // 2 :] = 0
    with torch.inference_mode():
        drawn = model.draw(torch.from_numpy(mels)[:, None], model.encode_face(pictures))
    return (torch.cat(drawn, dim=1).permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)


def test_engines_agree(engine):
    backend, model = engine
    faces, mels = samples(10)
    assert_close(backend.generate(faces, mels), eager(model, faces, mels))
    if backend.name != "onnx":  # which takes 10 seconds more to convert
        still = backend.generate_still(backend.prepare(faces[0]), mels[:3])
        assert_close(still, eager(model, np.repeat(faces[:1], 3, axis=0), mels[:3]))


@pytest.mark.parametrize(("audio", "face"), COMBINATIONS)
def test_every_batch_norm_is_folded(audio, face):
    model = fill(tiny(audio, face)).eval()
    folded = fold_batch_norm(copy.deepcopy(model))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    mels, faces = batch(1)
    with torch.no_grad():
        expected = model(mels, faces)
        assert torch.allclose(folded(mels, faces), expected, atol=1e-4)


def test_half_precision_is_close():
    model, (faces, mels) = fill(tiny("conv1d_transformer")).eval(), samples(3)
    half = TorchBackend(model, half=True).generate(faces, mels)
    assert_close(half, eager(model, faces, mels), levels=3, different=0.3)


def test_pasting_changes_only_what_the_mask_takes():
    model, (faces, mels) = fill(tiny()).eval(), samples(1)
    made = create_backend(model, "cpu", "torch").generate(faces, mels)[0]
    frame = np.random.default_rng(5).integers(0, 256, (200, 220, 3), np.uint8)
    before = frame.copy()
    paste_face(frame, made, (30, 20, 190, 180))
    changed = np.argwhere((frame != before).any(2))
    assert len(changed) and changed[:, 0].min() >= 20 + 79 and changed[:, 0].max() < 180
    # what is pasted into the very face that the model saw is what the model composes
    pictures = np.concatenate((faces, faces), axis=3).transpose(0, 3, 1, 2) / np.float32(255)
    pictures[:, :3, 48:] = 0
    with torch.no_grad():
        composed = model(torch.from_numpy(mels)[:, None], torch.from_numpy(pictures))[0]
    face = faces[0].copy()
    paste_face(face, made, (0, 0, 96, 96))
    assert np.abs(face - 255 * composed.permute(1, 2, 0).numpy()).max() < 2.5


@pytest.mark.parametrize(("audio", "face"), COMBINATIONS)
def test_checkpoint_round_trip(audio, face, tmp_path):
    model, path = tiny(audio, face, 192), tmp_path / "a.pth"
    record = {"name": "crossattn", "width": 0.125, "img_size": 192}
    assert describe_model(model) == record | {"audio_encoder": audio, "face_encoder": face}
    save_checkpoint(path, {"state_dict": model.state_dict(), "model": describe_model(model)})
    for loaded in (load_generator(path), load_model(path, "crossattn")):
        assert describe_model(loaded) == describe_model(model) and not loaded.training
        assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())
    with pytest.raises(InputError, match="is a crossattn, expected a Wav2Lip"):
        load_model(path, "Wav2Lip")


def test_what_does_not_fit_is_one_line(tmp_path):
    path, model, wav2lip = tmp_path / "a.pth", tiny(), create_model("Wav2Lip", 0.125)
    other = tiny(face="efficientnet_b0")

    def said(into, model, record=None):
        record = describe_model(model) if record is None else record
        checkpoint = {"state_dict": model.state_dict(), "model": record}
        save_checkpoint(path, checkpoint)
        with pytest.raises(InputError) as caught:
            load_weights(into, checkpoint, path) if into is not None else load_generator(path)
        assert "\n" not in str(caught.value) and "a.pth" in str(caught.value)
        return str(caught.value)

    assert "not a Wav2Lip" in said(wav2lip, model) and "it is a crossattn" in said(wav2lip, model)
    assert "not a crossattn" in said(model, wav2lip) and "a Wav2Lip" in said(model, wav2lip)
    assert "conv1d_lstm and efficientnet_b0" in said(model, other)
    assert "img_size 192, expected 96" in said(model, tiny(img_size=192))
    assert "looks like a crossattn" in said(None, model, {})
    assert "unknown audio_encoder" in said(None, model, describe_model(model) | {
        "audio_encoder": ["x"]})  # fmt: skip
    assert "damaged" in said(None, model, describe_model(model) | {"img_size": 100})
    expert = create_model("SyncNet_color", 0.125)
    assert "is a SyncNet_color, expected a Wav2Lip" in said(None, expert)
    save_checkpoint(path, {"state_dict": wav2lip.state_dict(), "model": describe_model(wav2lip)})
    assert type(load_generator(path)).__name__ == "Wav2Lip"


def test_a_fixed_batch_is_learned():
    torch.manual_seed(0)
    model, (mels, faces) = tiny(), batch(1)
    smooth = torch.nn.functional.interpolate(inputs(9, 1, 3, 5, 6, 6), (5, 96, 96))
    faces[:, 3:], target = smooth, smooth.clone()  # the reference but for a white mouth
    target[..., 60:85, 30:66] = 1
    faces[:, :3, :, :48] = target[..., :48, :]
    expert = create_model("SyncNet_color", 0.125).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    data = {"indiv_mels": mels, "x": faces, "y": target, "mel": mels[:, 0]}
    loss = create_mask_loss(HParams(model="crossattn"))
    before = float((target - smooth).abs().mean())

    def step(data):
        return train_step(data, model, expert, optimizer, 0.0, None, loss)[0]

    assert overfit(step, data, "l1", 0.5 * before, 60)
    mask = model(mels, faces, masks=True)[1]
    assert mask[..., 64:80, 36:60].mean() > 2 * mask[..., 48:, :20].mean()


@pytest.mark.parametrize(("script", "audio"), [
    ("wav2lip_train.py", "conv1d_lstm"), ("hq_wav2lip_train.py", "conv1d_transformer")
])  # fmt: skip
def test_training_resumes_bit_for_bit_and_refuses_the_other_family(
    script, audio, preprocessed_root, synthetic_root, trained_expert, tmp_path
):
    run = (script, preprocessed_root, synthetic_root)
    extra = ("--syncnet_checkpoint_path", trained_expert)
    options = {"model": "crossattn", "audio_encoder": audio}
    train(*run, tmp_path / "a", *extra, nsteps=2, checkpoint_interval=1, **options)
    (tmp_path / "b/ckpt").mkdir(parents=True)
    for path in (tmp_path / "a/ckpt").glob("*_step000000001.pth"):
        shutil.copy(path, tmp_path / "b/ckpt")
    train(*run, tmp_path / "b", *extra, nsteps=2, **options)
    name = "checkpoint_step000000002.pth"
    one, two = weights(tmp_path / "a/ckpt" / name), weights(tmp_path / "b/ckpt" / name)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    steps = [line for line in metrics(tmp_path / "a/runs/ckpt") if line["split"] == "train"]
    assert [line["step"] for line in steps] == [1, 2] and all(line["mask"] > 0 for line in steps)
    assert any((tmp_path / "b/runs/ckpt").glob("samples_step*.png"))
    assert (tmp_path / "b/ckpt" / f"disc_{name}").exists() == ("hq" in script)
    assert load_generator(tmp_path / "a/ckpt" / name).options["audio_encoder"] == audio
    result = train(*run, tmp_path / "b", *extra, nsteps=3, code=2)
    assert_refused(result, "not a Wav2Lip", "it is a crossattn generator")
