"""face_detection.sfd: golden network outputs, released boxes, refusals of unusable weights."""

import json
import pickle
import urllib.error

import numpy as np
import pytest
from conftest import GOLDEN, Poison

from errors import InputError
from face_detection import create_detector
from face_detection.base import Box


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A weights file of S3FD's keys and shapes, filled by the rule of golden/fill.py."""
    import torch
    from fill import filled

    shapes = json.loads((GOLDEN / "state_dicts.json").read_text())["S3FD"]
    path = tmp_path_factory.mktemp("weights") / "s3fd.pth"
    torch.save(
        {key: filled(key, tuple(shape), torch.float32) for key, shape in shapes.items()}, path
    )
    return path


@pytest.fixture(scope="module")
def sfd(weights):
    return create_detector("sfd", weights=str(weights))


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """A machine without S3FD weights and without a network."""
    import torch

    from models import pretrained

    def refuse(url, timeout):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(pretrained, "CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(pretrained.urllib.request, "urlopen", refuse)
    return tmp_path


def test_s3fd_outputs_are_the_released_ones(sfd):
    """The reference input was found by search: uniform in [-100, 140], fed to the network as it is
    (no mean taken off, no channel flip), and the class scores are those before the softmax.
    """
    from fill import inputs

    golden = np.load(GOLDEN / "s3fd_public.npz")
    outputs = sfd.network_outputs(inputs(int(golden["seed"]), 2, 3, 160, 128, low=-100, high=140))
    assert len(outputs) == 12
    for number, output in enumerate(outputs):
        expected = golden[f"o{number}"]
        assert output.shape == expected.shape
        np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_s3fd_keys_are_the_released_ones(sfd):
    shapes = json.loads((GOLDEN / "state_dicts.json").read_text())["S3FD"]
    found = {key: list(value.shape) for key, value in sfd.network.state_dict().items()}
    assert found == shapes


def test_s3fd_sees_rgb_with_the_mean_taken_off_in_that_order():
    from face_detection.sfd import prepare

    frame = np.full((1, 40, 50, 3), (10, 20, 30), np.uint8)  # blue 10, green 20, red 30
    images = prepare(frame)
    assert images.shape == (1, 3, 40, 50)
    assert images[0, :, 7, 9].tolist() == [30 - 104, 20 - 117, 10 - 123]


def random_frames(count, height=64, width=96):
    shape = (count, height, width, 3)
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def test_boxes_equal_the_packages_own_on_bgr_frames(sfd, weights):
    """Filled weights put thousands of cells near the threshold: every step of decoding counts."""
    import torch
    from face_alignment.detection.sfd.sfd_detector import SFDDetector

    frames = random_frames(2)
    package = SFDDetector("cpu", path_to_detector=str(weights))
    expected = package.detect_from_batch(torch.from_numpy(frames).permute(0, 3, 1, 2))
    found = sfd.detect(frames)
    assert [len(boxes) for boxes in found] == [len(boxes) for boxes in expected]
    assert min(map(len, found)) > 5
    for boxes, rows in zip(found, expected, strict=True):
        rows = sorted(map(list, rows), key=lambda row: -row[4])
        np.testing.assert_allclose(boxes, rows, rtol=1e-4, atol=1e-3)
        assert all(isinstance(value, float) for box in boxes for value in box)


def test_a_frame_alone_and_in_a_batch_gives_the_same_boxes(sfd, monkeypatch):
    frames = random_frames(3)
    together = sfd.detect(frames)
    monkeypatch.setattr("face_detection.sfd.CPU_PIXELS", 1)  # now one frame a forward pass
    apart = sfd.detect(list(frames))
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)
    assert sfd.detect([]) == []


def fabricated_outputs(peaks, frames=1, size=64):
    """Maps of a size x size frame whose only faces are `peaks`: (frame, scale, y, x, logit)."""
    import torch

    outputs = []
    for scale in range(6):
        side = max(1, size // 2 ** (scale + 2))
        conf = torch.zeros(frames, 2, side, side)
        conf[:, 0] = 20.0  # background everywhere
        outputs += [conf, torch.zeros(frames, 4, side, side)]
    for frame, scale, y, x, logit in peaks:
        outputs[2 * scale][frame, :, y, x] = torch.tensor([0.0, logit])
    return outputs


def test_decoding_threshold_order_and_suppression(sfd, monkeypatch):
    """Offsets of zero give the anchors: side 4 * stride around the cell's centre."""
    peaks = [
        (0, 0, 4, 4, 1.0),
        (0, 0, 4, 5, 3.0),  # overlap 0.6: the better one stays
        (0, 0, 12, 12, 2.0),  # far from both
        (0, 1, 6, 1, -0.1),  # scores just below 0.5
        (1, 2, 1, 1, 0.1),
    ]  # the second frame's, just above
    monkeypatch.setattr(sfd, "network_outputs", lambda images: fabricated_outputs(peaks, frames=3))
    found = sfd.detect(np.zeros((3, 64, 64, 3), np.uint8))
    assert [[box[:4] for box in boxes] for boxes in found] == [
        [(14.0, 10.0, 30.0, 26.0), (42.0, 42.0, 58.0, 58.0)],
        [(-8.0, -8.0, 56.0, 56.0)],
        [],
    ]
    assert found[0][0].score == pytest.approx(1 / (1 + np.exp(-3.0)), abs=1e-6)


def test_a_frame_smaller_than_the_network_needs(sfd):
    assert len(sfd.detect(random_frames(1, 9, 7))) == 1


def test_large_frames_are_searched_scaled_down(sfd, monkeypatch):
    shapes = []

    def one_box(frames):
        shapes.append(frames.shape)
        return [[Box(10, 20, 30, 50, 0.9)] for _ in frames]

    monkeypatch.setattr(sfd, "_detect_batch", one_box)
    monkeypatch.setattr(sfd, "max_side", 160)
    (boxes,) = sfd.detect(np.zeros((1, 240, 320, 3), np.uint8))
    assert shapes == [(1, 120, 160, 3)] and boxes == [Box(20, 40, 60, 100, 0.9)]
    (boxes,) = sfd.detect(np.zeros((1, 160, 120, 3), np.uint8))
    assert shapes[1] == (1, 160, 120, 3) and boxes == [Box(10, 20, 30, 50, 0.9)]


def test_gpu_out_of_memory_halves_the_batch(sfd, monkeypatch):
    import torch

    sizes = []

    def detect_batch(frames):
        sizes.append(len(frames))
        if len(frames) > 2:
            raise torch.cuda.OutOfMemoryError("full")
        return [[] for _ in frames]

    monkeypatch.setattr(sfd, "_detect_batch", detect_batch)
    assert sfd.detect(random_frames(7)) == [[]] * 7
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]

    def never_fits(frames):
        raise torch.cuda.OutOfMemoryError("full")

    monkeypatch.setattr(sfd, "_detect_batch", never_fits)
    with pytest.raises(InputError, match="96x64 frame is too big.*--resize_factor"):
        sfd.detect(random_frames(2))


def test_no_weights_anywhere_says_what_to_put_where(no_weights):
    with pytest.raises(InputError) as caught:
        create_detector("sfd")
    message = str(caught.value)
    for part in (
        "s3fd-619a316812.pth",
        str(no_weights / "checkpoints" / "s3fd.pth"),
        "--s3fd_weights",
        "--detector centerface",
        "no network here",
    ):
        assert part in message
    assert "\n" not in message


def test_weights_in_checkpoints_or_in_the_hub_cache_are_used(no_weights):
    from face_detection.sfd import find_weights

    cached = no_weights / "hub" / "checkpoints" / "s3fd-619a316812.pth"
    local = no_weights / "checkpoints" / "s3fd.pth"
    for path in (cached, local):  # the local one comes before the cache
        path.parent.mkdir(parents=True)
        path.write_bytes(b"weights")
        assert find_weights() == str(path)
    assert find_weights(str(cached)) == str(cached)


def test_prefixed_and_wrapped_weights_load(sfd, weights, tmp_path):
    import torch

    state = {f"module.{key}": value for key, value in torch.load(weights).items()}
    path = tmp_path / "wrapped.pth"
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
    other = create_detector("sfd", weights=str(path))
    same = sfd.network.state_dict()
    assert all(torch.equal(value, same[key]) for key, value in other.network.state_dict().items())


def test_unusable_weights_are_refused_in_one_line(weights, tmp_path):
    import torch

    content = weights.read_bytes()
    trace = tmp_path / "poison-ran"
    files = {
        "html": b"<!DOCTYPE html><html><body>Not found</body></html>",
        "empty": b"",
        "text": b"version https://git-lfs.example/spec\n",
        "truncated": content[: len(content) // 2],
        "poisoned": pickle.dumps({"conv1_1.weight": Poison(trace)}, protocol=2),
    }
    for name, data in files.items():
        (tmp_path / f"{name}.pth").write_bytes(data)
    torch.save({"conv1_1.weight": Poison(trace)}, tmp_path / "poisoned_zip.pth")
    torch.save({"face_encoder.0.weight": torch.zeros(3)}, tmp_path / "other_model.pth")
    state = torch.load(weights)
    torch.save({**state, "conv1_1.bias": torch.zeros(3)}, tmp_path / "other_shape.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in (*files, "poisoned_zip", "other_model", "other_shape", "list", "missing"):
        path = tmp_path / f"{name}.pth"
        with pytest.raises(InputError) as caught:
            create_detector("sfd", weights=str(path))
        assert str(path) in str(caught.value), name
        assert "\n" not in str(caught.value), name
    assert not trace.exists()


def test_device_that_is_not_there(weights):
    with pytest.raises(InputError, match="no such GPU: cuda:99.*--device cpu"):
        create_detector("sfd", device="cuda:99", weights=str(weights))
    with pytest.raises(InputError, match="unknown device"):
        create_detector("sfd", device="gpu", weights=str(weights))


def test_half_precision_boxes_are_within_a_pixel(weights, sfd):
    frames = np.random.default_rng(0).integers(0, 256, (2, 128, 160, 3), np.uint8)
    half = create_detector("sfd", weights=str(weights), half=True, threshold=0.7)
    full = create_detector("sfd", weights=str(weights), threshold=0.7)
    for found, expected in zip(half.detect(frames), full.detect(frames), strict=True):
        assert len(found) == len(expected) > 1
        np.testing.assert_allclose(np.array(found)[:, :4], np.array(expected)[:, :4], atol=1)
    assert half.network.conv1_1.weight.dtype == half.dtype  # it did run in half precision


def test_half_precision_falls_back_where_it_overflows(weights, caplog):
    import torch

    detector = create_detector("sfd", weights=str(weights), half=True, threshold=0.7)
    with torch.no_grad():
        detector.network.conv1_1.weight *= 60000  # beyond float16 in the next layer
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    detector.detect(frames)
    assert "float32 from here" in caplog.text
    assert detector.dtype == detector.network.conv1_1.weight.dtype == torch.float32
