import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN
from fill import fill, inputs

from errors import InputError
from models import create_model
from models.syncnet import cosine_loss, get_sync_loss, stack_window, sync_accuracy
from models.wav2lip import fold_time, unfold_time

MEL = {"low": -4, "high": 4}
golden = np.load(GOLDEN / "models_public.npz")
SEED = int(golden["seed"])


def outputs_equal(tensor, key):
    np.testing.assert_allclose(tensor.detach().numpy(), golden[key], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("Wav2Lip", 36298035), ("SyncNet_color", 16435072), ("Wav2Lip_disc_qual", None)],
)
def test_released_keys_shapes_and_order(name, parameters):
    released = json.loads((GOLDEN / "state_dicts.json").read_text())[name]
    model = create_model(name)
    state = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert list(state.items()) == list(released.items())
    if parameters:
        assert sum(p.numel() for p in model.parameters()) == parameters


@torch.no_grad()
def test_generator_meets_the_golden_outputs():
    model = fill(create_model("Wav2Lip")).eval()
    frames = model(inputs(SEED, 2, 1, 80, 16, **MEL), inputs(SEED + 1, 2, 6, 96, 96))
    outputs_equal(frames, "wav2lip_4d")
    frames = model(inputs(SEED + 2, 2, 5, 1, 80, 16, **MEL), inputs(SEED + 3, 2, 6, 5, 96, 96))
    outputs_equal(frames[..., ::4, ::4], "wav2lip_5d")


@torch.no_grad()
def test_expert_meets_the_golden_outputs():
    model = fill(create_model("SyncNet_color")).eval()
    audio, face = model(inputs(SEED + 4, 2, 1, 80, 16, **MEL), inputs(SEED + 5, 2, 15, 48, 96))
    outputs_equal(audio, "syncnet_audio")
    outputs_equal(face, "syncnet_face")
    np.testing.assert_allclose(face.norm(dim=1), 1, atol=1e-6)


@torch.no_grad()
def test_discriminator_meets_the_golden_outputs():
    model = fill(create_model("Wav2Lip_disc_qual")).eval()
    frames = inputs(SEED + 6, 2, 3, 5, 96, 96)
    outputs_equal(model(frames), "disc")
    outputs_equal(model.perceptual_forward(frames), "disc_perceptual")


@pytest.mark.parametrize("width", [0.125, 0.5])
def test_small_models_train(width):
    generator, expert = create_model("Wav2Lip", width), create_model("SyncNet_color", width)
    mel, faces = torch.randn(2, 5, 1, 80, 16), torch.rand(2, 6, 5, 96, 96)
    frames = generator(mel, faces)
    assert frames.shape == (2, 3, 5, 96, 96)
    get_sync_loss(expert, mel[:, 0], frames).backward()
    assert all(p.grad is not None for p in generator.parameters())
    channels = [m.out_channels for m in generator.modules() if isinstance(m, torch.nn.Conv2d)]
    assert min(c for c in channels if c != 3) >= 8


def test_time_is_folded_frame_by_frame():
    audio, face = torch.arange(6.0).view(2, 3, 1, 1, 1), torch.arange(6.0).view(2, 1, 3, 1, 1)
    folded_audio, folded_face = fold_time(audio, face)
    assert folded_audio.flatten().tolist() == [0, 3, 1, 4, 2, 5]  # all clips' frame 0 first
    assert folded_face.flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert torch.equal(unfold_time(folded_face, 2), face)


def test_window_is_stacked_frame_by_frame():
    frames = torch.arange(2 * 3 * 5 * 4 * 2.0).view(2, 3, 5, 4, 2)
    stacked = stack_window(frames)
    assert stacked.shape == (2, 15, 2, 2)
    assert torch.equal(stacked[:, 3:6], frames[:, :, 1, 2:])


def test_cosine_loss_closed_form():
    same, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    assert cosine_loss(same, same, one).item() == pytest.approx(0, abs=1e-5)
    assert cosine_loss(same, other, zero).item() == pytest.approx(0, abs=1e-5)
    diagonal = torch.tensor([[0.5, 3**0.5 / 2]])
    assert cosine_loss(same, diagonal, one).item() == pytest.approx(np.log(2), abs=1e-5)
    pairs = torch.cat((same, same)), torch.cat((same, other))
    assert sync_accuracy(*pairs, torch.tensor([[1.0], [0.0]])).item() == 1
    assert sync_accuracy(*pairs, torch.tensor([[0.0], [0.0]])).item() == 0.5


def test_unknown_model():
    with pytest.raises(InputError, match="Wav2Lip_disc_qual"):
        create_model("wav2vec")
