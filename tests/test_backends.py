import sys
import threading

import numpy as np
import pytest
import torch
from fill import fill, inputs

from backends.api import create_backend
from backends.openvino import OpenVINOBackend
from backends.torch import TorchBackend
from errors import InputError
from models import create_model

ENGINES = {"torch": (), "openvino": ("openvino",), "onnx": ("onnx", "onnxscript", "onnxruntime")}


def generator(width=0.125, img_size=96):
    model = fill(create_model("Wav2Lip", width, img_size))
    return model.eval()


def samples(count, img_size=96, seed=0):
    faces = np.random.default_rng(seed).integers(0, 256, (count, img_size, img_size, 3))
    return faces.astype(np.uint8), inputs(seed + 1, count, 80, 16, low=-4, high=4).numpy()


@torch.inference_mode()
def eager(model, faces, mels):
    """The released program's way from pictures to pictures."""
    masked = faces.copy()
    masked[:, faces.shape[1] // 2 :] = 0
    pictures = np.concatenate((masked, faces), axis=3) / 255.0
    pictures = torch.FloatTensor(pictures.transpose(0, 3, 1, 2))
    frames = model(torch.from_numpy(mels)[:, None], pictures)
    return (frames.numpy().transpose(0, 2, 3, 1) * 255.0).astype(np.uint8)


def assert_close(frames, expected, levels=1, different=0.001):
    """Within some grey levels, and but for rounding at the edges between them all the same."""
    assert frames.dtype == np.uint8 and frames.shape == expected.shape
    difference = np.abs(frames.astype(int) - expected)
    assert difference.max() <= levels
    assert (difference > 0).mean() < different
    assert expected.std() > 5


@pytest.fixture(scope="module", params=ENGINES)
def backend(request):
    for package in ENGINES[request.param]:
        pytest.importorskip(package)
    return create_backend(generator(), "cpu", request.param)


def test_every_back_end_meets_eager_torch(backend):
    model = generator()
    for count in (3, 1, 10, 3):  # 10: more than are computed at once
        faces, mels = samples(count, seed=count)
        assert_close(backend.generate(faces, mels), eager(model, faces, mels))
    faces, mels = samples(3)
    kept = backend.generate(faces, mels)
    frames = kept.copy()
    faces.setflags(write=False)
    assert_close(backend.generate(faces[::-1], mels[::-1].astype(np.float64)), frames[::-1])
    assert (kept == frames).all()  # a result is the caller's own
    assert backend.generate(faces[:0], mels[:0]).shape == (0, 96, 96, 3)


def test_a_still_face_is_encoded_once(backend):
    (face, other), mels = samples(2)[0], samples(10)[1]
    features = backend.prepare(face)
    backend.prepare(other)  # changes nothing
    for count in (10, 1):
        expected = backend.generate(np.stack([face] * count), mels[:count])
        assert_close(backend.generate_still(features, mels[:count]), expected)


def test_description(backend):
    engine, precision, processor = backend.describe().split(", ")
    assert engine.startswith(("torch ", "openvino ", "onnxruntime "))
    assert (precision, processor) == ("float32", "CPU")
    assert backend.name in ENGINES


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_larger_pictures(name):
    if name != "torch":
        pytest.importorskip(name)
    model = generator(img_size=192)  # with its added stages at work
    backend, (faces, mels) = create_backend(model, "cpu", name), samples(3, 192)
    expected = eager(model, faces, mels)
    assert_close(backend.generate(faces, mels), expected)
    assert_close(backend.generate_still(backend.prepare(faces[1]), mels[1:2]), expected[1:2])


def test_full_size_and_half_precision():
    model, (faces, mels) = generator(1.0), samples(3)
    expected = eager(model, faces, mels)
    assert_close(TorchBackend(model).generate(faces, mels), expected)
    half = TorchBackend(model, half=True)
    assert "float16" in half.describe()
    assert_close(half.generate(faces, mels), expected, levels=2, different=0.2)
    pytest.importorskip("openvino")
    assert_close(create_backend(model, "cpu", "openvino").generate(faces, mels), expected)


def overflowing(model, blocks):
    """The same frames, but between these two blocks all numbers are 100,000 times as large."""
    first, second = blocks
    with torch.no_grad():
        for value in (first.conv_block[1].weight, first.conv_block[1].bias):
            value.mul_(1e5)
        (second.conv_block[0] if hasattr(second, "conv_block") else second).weight.div_(1e5)
    return model


@pytest.mark.parametrize("part", ["face encoder", "decoder"])
def test_what_overflows_in_half_precision_is_computed_again(part, caplog):
    model, (faces, mels) = generator(), samples(3)
    expected = eager(model, faces, mels)
    blocks = model.face_encoder_blocks[6] if part == "face encoder" else model.output_block[:2]
    half = TorchBackend(overflowing(model, blocks), half=True)
    for _ in range(2):
        assert_close(half.generate(faces, mels), expected)
        still = half.generate_still(half.prepare(faces[1]), mels[1:2])
        assert_close(still, expected[1:2], levels=2, different=0.2)  # what does not is half
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "the network overflows in float16"
    ]


@pytest.mark.parametrize("name", ENGINES)
def test_an_output_that_is_not_finite_is_refused(name):
    for package in ENGINES[name]:
        pytest.importorskip(package)
    model, (faces, mels) = generator(), samples(10)
    for value in model.output_block[0].conv_block[1].parameters():
        value.data.fill_(3e38)
    backend = create_backend(model, "cpu", name)
    for draw in (
        lambda: backend.generate(faces, mels),
        lambda: backend.generate_still(backend.prepare(faces[0]), mels),
    ):
        with pytest.raises(InputError, match=f"not finite .{name}.*float32, CPU") as caught:
            draw()
        assert "\n" not in str(caught.value)


class Joined(torch.nn.Module):
    """A generator of another family, without encode_face and decode."""

    def __init__(self):
        super().__init__()
        self.img_size, self.inner = 96, generator()

    def forward(self, audio_sequences, face_sequences):
        return self.inner(audio_sequences, face_sequences)


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_a_model_that_does_not_split(name):
    if name != "torch":
        pytest.importorskip(name)
    backend, (faces, mels) = create_backend(Joined().eval(), "cpu", name), samples(10)
    repeated = np.repeat(faces[:1], 10, axis=0)
    expected = eager(generator(), repeated, mels)
    assert_close(backend.generate_still(backend.prepare(faces[0]), mels), expected)


def test_the_model_is_left_as_it_was():
    model = generator()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for name in ("torch", "auto"):
        create_backend(model, "cpu", name).generate(*samples(1))
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.requires_grad for p in model.parameters())


def test_other_threads_may_use_it():
    backend, model, results = create_backend(generator(), "cpu"), generator(), {}
    sets = {seed: samples(9, seed=seed) for seed in (1, 2, 3)}

    def work(seed):
        results[seed] = backend.generate(*sets[seed])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, pair in sets.items():
        assert_close(results[seed], eager(model, *pair))


def test_auto_takes_openvino_or_torch(monkeypatch):
    pytest.importorskip("openvino")
    assert isinstance(create_backend(generator(), "cpu"), OpenVINOBackend)
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    assert create_backend(generator(), "cpu").name == "torch"


@pytest.mark.parametrize(
    ("name", "package", "remedy"),
    [
        ("openvino", "openvino", "pip install openvino"),
        ("onnx", "onnxruntime", "pip install onnx onnxscript onnxruntime"),
    ],
)
def test_a_missing_package_is_one_line(monkeypatch, name, package, remedy):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"needs {package}.*{remedy}") as caught:
        create_backend(generator(), "cpu", name)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_is_refused():
    model = generator()
    with pytest.raises(InputError, match="'tpu'; choose one of auto, torch, openvino, onnx"):
        create_backend(model, "cpu", "tpu")
    with pytest.raises(InputError, match="openvino back end runs on the CPU, not on cuda"):
        create_backend(model, "cuda", "openvino")
    with pytest.raises(ValueError, match="2 faces for 3 mel"):
        create_backend(model, "cpu", "torch").generate(samples(2)[0], samples(3)[1])


class Replay:
    """In place of a CUDA graph: replay() computes the output from the captured places again."""

    def __init__(self, network, places):
        self.network, self.places, self.count = network, places, 0
        self.outputs = network(*places)

    def replay(self):
        self.count += 1
        for output, new in zip(self.outputs, self.network(*self.places), strict=True):
            output.copy_(new)


def gpu_like(monkeypatch, capture):
    """A back end that takes the GPU's way on the CPU."""
    import contextlib

    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(TorchBackend, "_capture", capture)
    backend = TorchBackend(generator())
    backend._graphs = {}
    return backend


def test_a_batch_size_that_comes_again_is_replayed(monkeypatch):
    captured = []

    def capture(backend, part, tensors):
        graph = Replay(backend._networks[part], tuple(x.clone() for x in tensors))
        captured.append((part, len(tensors[0]), graph))
        return graph, graph.places, graph.outputs

    backend, model = gpu_like(monkeypatch, capture), generator()
    features = backend.prepare(samples(1)[0][0])
    for seed, count in enumerate((4, 4, 2, 4, 2)):
        faces, mels = samples(count, seed=seed)
        assert_close(backend.generate(faces, mels), eager(model, faces, mels))
        expected = backend.generate(np.repeat(samples(1)[0], count, axis=0), mels)
        assert_close(backend.generate_still(features, mels), expected)
    found = {(part, count): graph.count for part, count, graph in captured}
    assert found.keys() == {("whole", 4), ("whole", 2), ("decode", 4), ("decode", 2)}
    assert all(found.values())


def test_graphs_that_fail_are_given_up_with_one_warning(monkeypatch, caplog):
    def capture(backend, part, tensors):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    backend, (faces, mels) = gpu_like(monkeypatch, capture), samples(3)
    for _ in range(4):
        assert_close(backend.generate(faces, mels), eager(generator(), faces, mels))
    assert [record.getMessage() for record in caplog.records] == [
        "CUDA graphs are off, which is slower: operation not permitted when stream is capturing"
    ]
