import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import GOLDEN, REPOSITORY
from fill import fill, inputs

from errors import InputError
from models import create_model
from models.syncnet import cosine_loss, generator_sync_loss, stack_window, sync_accuracy
from models.wav2lip import adversarial_loss, fold_time, unfold_time

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


@pytest.mark.parametrize("width", [0.25, 1.0])
def test_a_fresh_discriminator_tells_pictures_apart(width):
    torch.manual_seed(0)
    model, frames = create_model("Wav2Lip_disc_qual", width), torch.rand(1, 3, 5, 96, 96)
    assert 1e-4 < float(model(frames, logits=True).std()) < 0.5
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.reset_parameters()
    assert float(model(frames, logits=True).std()) < 1e-5  # as released


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_discriminator_that_is_sure_of_everything_can_still_learn(dtype):
    """As met on a GPU: bfloat16, real and generated both called real, no gradient ever after."""
    model = fill(create_model("Wav2Lip_disc_qual", width=0.125))
    with torch.no_grad():
        model.binary_pred[0].bias.fill_(40.0)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        loss = adversarial_loss(model(torch.rand(1, 3, 5, 96, 96), logits=True), 0.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) > 30
    assert float(model.binary_pred[0].bias.grad) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("width", [0.125, 0.5])
def test_small_models_train(width):
    generator, expert = create_model("Wav2Lip", width), create_model("SyncNet_color", width)
    mel, faces = torch.randn(2, 5, 1, 80, 16), torch.rand(2, 6, 5, 96, 96)
    frames = generator(mel, faces)
    assert frames.shape == (2, 3, 5, 96, 96)
    assert not generator_sync_loss(expert, mel[:, 0], frames, 0.0).requires_grad
    generator_sync_loss(expert, mel[:, 0], frames, 0.03).backward()
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


NAMES = ("Wav2Lip", "Wav2Lip_disc_qual", "SyncNet_color")
LARGER = {192: (2,), 288: (3,), 384: (2, 2)}  # how the sizes grow from 96


def sized(name, img_size):
    """A narrow model with the same weights at every call, its added stages at work."""
    torch.manual_seed(0)
    model = create_model(name, 0.125, img_size)
    for key, value in model.named_parameters():
        if "_stages" in key and not value.any():  # joins and outputs begin at zero
            torch.nn.init.normal_(value, std=0.1)
    return model


def score(outputs):
    """A scalar that every element has its own share in."""
    return sum((out.flatten() * torch.linspace(1, 2, out.numel())).sum() for out in outputs)


def run(model, pictures):
    """The model's output for whole pictures (B, C, H, W), as a list of tensors."""
    if type(model).__name__ == "Wav2Lip_disc_qual":
        return [model(pictures[:, :3, None])]
    mel = inputs(SEED, len(pictures), 1, 80, 16, **MEL)
    if type(model).__name__ == "Wav2Lip":
        return [model(mel, pictures[:, :6])]
    return list(model(mel, pictures[:, :15, pictures.shape[2] // 2 :]))


@pytest.mark.parametrize("img_size", [96, 192, 288, 384])
def test_generator_of_every_size(img_size):
    model = sized("Wav2Lip", img_size).eval()
    assert (model.width, model.img_size) == (0.125, img_size)
    mel, faces = inputs(1, 1, 2, 1, 80, 16, **MEL), inputs(2, 1, 6, 2, img_size, img_size)
    with torch.no_grad():
        frames = model(mel, faces)
        one = model(mel[:, 1], faces[:, :, 1])
    assert frames.shape == (1, 3, 2, img_size, img_size)
    assert one.shape == (1, 3, img_size, img_size)
    torch.testing.assert_close(frames[:, :, 1], one)
    assert 0 <= frames.min() < frames.max() <= 1


@pytest.mark.parametrize("img_size", [96, 192, 288, 384])
def test_judges_of_every_size(img_size):
    expert, disc = sized("SyncNet_color", img_size), sized("Wav2Lip_disc_qual", img_size)
    assert (expert.width, expert.img_size) == (disc.width, disc.img_size) == (0.125, img_size)
    frames = inputs(3, 2, 3, 5, img_size, img_size).requires_grad_()
    assert disc(frames).shape == (10, 1)
    audio, face = expert(inputs(4, 2, 1, 80, 16, **MEL), stack_window(frames))
    assert audio.shape == face.shape == (2, 64)
    face[:, 0].sum().backward()
    # every pixel of the lower half counts, not only what shrinking leaves
    grads = frames.grad[:, :, :, img_size // 2 :]
    assert (grads != 0).float().mean() > 0.99
    factor = img_size // 96
    patches = grads.unfold(3, factor, factor).unfold(4, factor, factor).flatten(5)
    assert (patches.std(dim=-1, correction=0) > 0).any() == (img_size > 96)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("img_size", [96, 192, 288, 384])
def test_every_parameter_gets_a_gradient(name, img_size):
    model = sized(name, img_size)
    score(run(model, torch.rand(2, 15, img_size, img_size))).backward()
    for key, value in model.named_parameters():
        assert value.grad is not None and torch.isfinite(value.grad).all(), key
        if "_stages" in key and value.dim() > 1:
            assert value.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
def test_added_stages_wake_up_by_themselves(name):
    torch.manual_seed(0)
    model = create_model(name, 0.125, 384)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(3):  # one for each join that begins at zero, and one for what lies behind
        optimizer.zero_grad()
        score(run(model, torch.rand(2, 15, 384, 384))).backward()
        optimizer.step()
    weights = {k: v for k, v in model.named_parameters() if "_stages" in k and v.dim() > 1}
    assert len(weights) == (16 if name == "Wav2Lip" else 6)
    assert all(value.grad.any() for value in weights.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_larger_model_contains_the_smaller_ones(name):
    shapes = {
        size: {key: value.shape for key, value in sized(name, size).state_dict().items()}
        for size in (96, 192, 288, 384)
    }
    for smaller, larger in ((96, 192), (96, 288), (192, 384)):
        assert shapes[smaller].items() < shapes[larger].items()
        assert list(shapes[larger])[: len(shapes[96])] == list(shapes[96])
    assert not any("_stages" in key for key in shapes[96])


@pytest.mark.parametrize("img_size", LARGER)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_larger_model_starts_as_the_released_one(name, img_size):
    smaller, larger = fill(create_model(name, 0.125)), create_model(name, 0.125, img_size)
    larger.load_state_dict(smaller.state_dict(), strict=False)
    pictures = inputs(5, 2, 15, img_size, img_size)
    small = run(smaller.eval(), torch.nn.functional.avg_pool2d(pictures, img_size // 96))
    large = run(larger.eval(), pictures)
    if name == "Wav2Lip":  # the same picture, enlarged
        logits = small[0].logit()
        for factor in LARGER[img_size]:
            logits = torch.nn.Upsample(scale_factor=factor, mode="bilinear")(logits)
        small = [logits.sigmoid()]
    for a, b in zip(small, large, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("img_size", [0, 64, 256, 768])
@pytest.mark.parametrize("name", NAMES)
def test_other_sizes_are_refused(name, img_size):
    with pytest.raises(InputError, match=f"img_size {img_size}; .*96, 192, 288, 384"):
        create_model(name, img_size=img_size)


@pytest.mark.parametrize("width", [0, -0.5, 4.5, float("nan")])
@pytest.mark.parametrize("name", [*NAMES, "SyncNet_v2", "crossattn"])
def test_widths_that_could_not_be_loaded_are_refused(name, width):
    with pytest.raises(InputError, match="width"):
        create_model(name, width)


def test_the_lse_judge_has_one_size():
    with pytest.raises(InputError, match="SyncNet_v2"):
        create_model("SyncNet_v2", 0.125, 192)


def test_the_released_names_load_when_asked_for():
    code = (
        "import sys; from models import create_model; before = 'torch' in sys.modules\n"
        "from models import SyncNet_color, Wav2Lip, Wav2Lip_disc_qual\n"
        "print(before, Wav2Lip.__name__, Wav2Lip_disc_qual.__name__, SyncNet_color.__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            cwd=REPOSITORY, timeout=300)  # fmt: skip
    assert result.stdout.split() == ["False", "Wav2Lip", "Wav2Lip_disc_qual", "SyncNet_color"], (
        result.stderr
    )
    with pytest.raises(ImportError, match="nothing"):
        from models import nothing  # noqa: F401
