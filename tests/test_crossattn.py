"""models/crossattn.py and its parts: shapes, time, mask, losses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from fill import fill, inputs
from torchvision.models import efficientnet_b0, resnet50

import models.audio_encoder as audio_encoder
import models.face_encoder as face_encoder
from errors import InputError
from hparams import HParams, load_hparams
from models import create_model
from models.cost import frame_flop
from models.face_compositor import compose, mask_loss
from models.fusion_module import AttentionBlock, grid_sinusoids, sinusoids
from training.setup import load_imagenet
from training.steps import create_mask_loss, generate
from wav2lip_train import train_step

COMBINATIONS = list(itertools.product(audio_encoder.KINDS, face_encoder.KINDS))
MILLIONS = {"resnet50": 34.2, "efficientnet_b0": 12.2}  # with either audio encoder, to 1 %
GFLOP = {"resnet50": 4.52, "efficientnet_b0": 2.34}


def tiny(audio="conv1d_lstm", face="resnet50", img_size=96, seed=0):
    torch.manual_seed(seed)
    return create_model("crossattn", 0.125, img_size, audio, face)


def batch(count=2, size=96, frames=5, seed=0):
    """As training's: the first three channels' lower half is zero."""
    faces = inputs(seed, count, 6, frames, size, size)
    faces[:, :3, :, size // 2 :] = 0
    return inputs(seed + 1, count, frames, 1, 80, 16, low=-4, high=4), faces


@pytest.mark.parametrize(("audio", "face"), COMBINATIONS)
def test_parameters_and_operations_of_the_full_model(audio, face):
    model = create_model("crossattn", audio_encoder=audio, face_encoder=face)
    count = sum(p.numel() for p in model.parameters())
    print(f"{audio} {face}: {count:,} parameters, {frame_flop(model) / 1e9:.2f} GFLOP a frame")
    assert count / 1e6 == pytest.approx(MILLIONS[face], rel=0.015)
    assert frame_flop(model) / 1e9 == pytest.approx(GFLOP[face], rel=0.01)


@pytest.mark.parametrize("img_size", [96, 192])
@pytest.mark.parametrize(("audio", "face"), COMBINATIONS)
def test_both_shapes_and_every_gradient(audio, face, img_size):
    model = tiny(audio, face, img_size).train()
    mels, faces = batch(size=img_size)
    frames, mask = model(mels, faces, masks=True)
    assert frames.shape == (2, 3, 5, img_size, img_size)
    assert mask.shape == (2, 1, 5, img_size, img_size)
    (frames.sum() + mask.sum()).backward()
    assert all(p.grad is not None for p in model.parameters())
    frames = model(mels[:, 0], faces[:, :, 0])
    assert frames.shape == (2, 3, img_size, img_size)
    frames.mean().backward()
    assert frames.min() >= 0 and frames.max() <= 1


def test_weights_are_the_same_for_every_size():
    small, large = tiny(), tiny(img_size=256)
    large.load_state_dict(small.state_dict())
    mels, faces = batch(1, 256)
    assert large.eval()(mels[:, 0], faces[:, :, 0]).shape == (1, 3, 256, 256)


@pytest.mark.parametrize("kind", audio_encoder.KINDS)
def test_frames_of_a_clip_hear_each_other_and_others_do_not(kind):
    model = fill(tiny(kind)).eval().double()  # rounding is far below what is told apart
    mels, faces = (x.double() for x in batch(2))
    faces = faces[:, :, :1].repeat(1, 1, 5, 1, 1)  # only the sound differs
    with torch.no_grad():
        frames = model(mels, faces)
        shuffled = model(mels[:, [3, 1, 0, 4, 2]], faces)[:, :, [2, 1, 4, 0, 3]]
        assert (frames - shuffled).abs().max() > 1e-6
        other = mels.clone()
        other[1] = 0  # another clip
        assert torch.allclose(model(other, faces)[0], frames[0], atol=1e-12)
        # without a time axis every frame is alone: in any company the same
        alone = model(mels[0], faces[0].transpose(0, 1))
        single = torch.cat([model(m[None], faces[:1, :, 0]) for m in mels[0]])
        assert torch.allclose(alone, single, atol=1e-12)
        assert (alone - frames[0].transpose(0, 1)).abs().max() > 1e-6


@pytest.mark.parametrize("kind", audio_encoder.KINDS)
def test_training_hears_some_clips_frame_by_frame(kind, monkeypatch):
    encoder = audio_encoder.AudioEncoder(kind, 16)
    mels = batch(6)[0].squeeze(2)  # (6, 5, 80, 16)
    together = encoder.eval()(mels)  # batch norm stays so
    alone = encoder(mels.flatten(0, 1)[:, None]).reshape(together.shape)
    assert not torch.allclose(together, alone, atol=1e-3)
    for share, expected in ((0, together), (1, alone)):
        monkeypatch.setattr(audio_encoder, "ALONE", share)
        encoder.training = True
        assert torch.allclose(encoder(mels), expected, atol=1e-5)
    monkeypatch.setattr(audio_encoder, "ALONE", 0.5)
    torch.manual_seed(0)
    mixed = encoder(mels)
    as_alone = [torch.allclose(a, b, atol=1e-5) for a, b in zip(mixed, alone, strict=True)]
    as_clip = [torch.allclose(a, b, atol=1e-5) for a, b in zip(mixed, together, strict=True)]
    assert any(as_alone) and any(as_clip) and all(np.logical_xor(as_alone, as_clip))


def test_positions_and_attention():
    code = sinusoids(torch.tensor([0.0, 1.0]), 4)
    wave = [1.0, 0.1]
    expected = [[0, 0, 1, 1], [*np.sin(wave), *np.cos(wave)]]
    assert torch.allclose(code, torch.tensor(expected, dtype=torch.float32))
    grid = grid_sinusoids(3, 8)
    assert len({tuple(row.tolist()) for row in grid}) == 9
    block = AttentionBlock(8)
    tokens, context = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    order = [4, 0, 3, 1, 2]  # a context is a set: places are told by their encodings
    assert torch.allclose(block(tokens, context), block(tokens, context[:, order]), atol=1e-5)
    assert not torch.allclose(block(tokens, context), block(tokens, context.flip(2)))


@pytest.mark.parametrize(("kind", "released"), [
    ("resnet50", resnet50), ("efficientnet_b0", efficientnet_b0)
])  # fmt: skip
def test_imagenet_weights_of_a_file(kind, released, tmp_path):
    network = fill(released()).eval()
    torch.save(network.state_dict(), tmp_path / "a.pth")
    encoder = face_encoder.FaceEncoder(kind, 1.0).eval()
    load_imagenet(encoder, str(tmp_path / "a.pth"))
    picture = inputs(0, 1, 3, 96, 96)  # BGR
    mean, std = (torch.tensor(x)[:, None, None] for x in (face_encoder.MEAN, face_encoder.STD))
    rgb = ((picture - mean) / std).flip(1)
    with torch.no_grad():
        deepest = encoder(picture.repeat(1, 2, 1, 1))[-1]  # both pictures the same
        if kind == "resnet50":
            layers = [module for name, module in network.named_children() if name != "fc"][:-1]
        else:
            layers = network.features[:8]
        expected = torch.nn.Sequential(*layers)(rgb)
    assert torch.allclose(deepest, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(InputError, match="a.pth is not it.*width 1"):
        load_imagenet(face_encoder.FaceEncoder(kind, 0.125), str(tmp_path / "a.pth"))
    other = face_encoder.FaceEncoder("efficientnet_b0" if kind == "resnet50" else "resnet50", 1.0)
    with pytest.raises(InputError, match="a.pth is not it"):
        load_imagenet(other, str(tmp_path / "a.pth"))


def test_the_mask_keeps_the_upper_half_and_what_it_does_not_take():
    model = fill(tiny()).eval()
    mels, faces = batch()
    with torch.no_grad():
        frames, mask = model(mels, faces, masks=True)
        untrained = tiny().eval()(mels, faces, masks=True)[1]  # takes most of what is generated
    assert mask.min() >= 0 and mask.max() <= 1 and mask.std() > 0.05
    assert untrained.max() == pytest.approx(0.88, abs=0.01)
    assert (mask[..., :48, :] == 0).all() and (mask[..., -1, 0] < 0.01).all()
    assert torch.equal(frames[..., :48, :], faces[:, :3, :, :48])
    kept = (mask == 0).expand_as(frames)[..., 48:, :]
    assert torch.equal(frames[..., 48:, :][kept], faces[:, 3:][..., 48:, :][kept])
    one, half = torch.ones(1, 1, 96, 96), torch.full((1, 1, 96, 96), 0.5)
    face = faces[:1, :, 0]
    assert torch.equal(compose(face, torch.zeros(1, 3, 96, 96), one), torch.zeros(1, 3, 96, 96))
    lower = compose(face, torch.ones(1, 3, 96, 96), half)[:, :, 48:]
    assert torch.allclose(lower, 0.5 + 0.5 * face[:, 3:, 48:])


def test_mask_loss():
    mask = torch.zeros(1, 1, 4, 5)
    mask[..., 2:, :] = 0.5  # half of it; 5 of the 15 steps down are 0.5, none to the right
    assert float(mask_loss(mask, 1.0, 0.0)) == pytest.approx(0.25)
    assert float(mask_loss(mask, 0.0, 3.0)) == pytest.approx(0.5)
    assert float(mask_loss(mask, 2.0, 6.0)) == pytest.approx(1.5)
    assert create_mask_loss(HParams()) is None
    hp = HParams(model="crossattn", mask_wt=2.0, mask_smooth_wt=6.0)
    assert float(create_mask_loss(hp)(mask)) == pytest.approx(1.5)


def test_the_mask_loss_is_a_part_of_the_total():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, mels, faces, masks=False):
            return (faces[:, :3] * self.value, self.value) if masks else faces[:, :3]

    mels, x = batch()
    made, masked = generate({"indiv_mels": mels, "x": x}, Model(), lambda mask: 3 * mask)
    assert masked["mask"].item() == 1.5 and made.shape == (2, 3, 5, 96, 96)
    assert generate({"indiv_mels": mels, "x": x}, Model(), None)[1] == {}
    expert = create_model("SyncNet_color", 0.125).eval().requires_grad_(False)
    model, data = Model(), {"indiv_mels": mels, "x": x, "y": x[:, 3:], "mel": mels[:, 0]}
    optimizer = torch.optim.SGD(model.parameters(), lr=0)
    scalars, _ = train_step(data, model, expert, optimizer, 0.0, None, lambda mask: 3 * mask)
    total, l1 = (scalars[name].item() for name in ("total", "l1"))
    assert total == pytest.approx(l1 + 1.5, rel=1e-5)


def test_names_that_do_not_exist():
    for options in ({"audio_encoder": "rnn"}, {"face_encoder": "vgg"}, {"img_size": 100}):
        with pytest.raises(InputError, match=f"{list(options)[0]}.*{list(options.values())[0]}"):
            create_model("crossattn", 0.125, **options)
    with pytest.raises(InputError, match="model must be one of 'Wav2Lip', 'crossattn'"):
        load_hparams(None, ["model=SyncNet_color"])


def test_the_config():
    hp = load_hparams(REPOSITORY / "configs/crossattn.yaml")
    assert (hp.model, hp.audio_encoder, hp.face_encoder) == ("crossattn", *COMBINATIONS[0])
    assert (hp.batch_size, hp.initial_learning_rate, hp.nepochs) == (32, 1e-4, 100)
