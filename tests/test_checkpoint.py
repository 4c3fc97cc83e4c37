import io
import logging
import os
import pickle
import random
import struct

import numpy as np
import pytest
import torch
from conftest import Poison

from errors import InputError
from models import create_model
from models.checkpoint import (
    checkpoint_path,
    describe_model,
    list_checkpoints,
    load_model,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)


@pytest.fixture(scope="module")
def expert():
    return create_model("SyncNet_color", width=0.125)


def test_released_file_loads(tmp_path, expert):
    state = {f"module.{name}": value for name, value in expert.state_dict().items()}
    released = {"state_dict": state, "optimizer": None, "global_step": 7, "global_epoch": 1}
    torch.save(released, tmp_path / "a.pth")
    checkpoint = read_checkpoint(tmp_path / "a.pth")
    assert checkpoint["global_step"] == 7
    other = create_model("SyncNet_color", width=0.125)
    load_weights(other, checkpoint, "a.pth")
    for name, value in expert.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_bare_state_dict_and_legacy_format_load(tmp_path, expert):
    torch.save(expert.state_dict(), tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert read_checkpoint(tmp_path / "a.pth")["state_dict"].keys() == expert.state_dict().keys()


def test_written_file_has_the_released_keys_and_its_width(tmp_path, expert):
    path = tmp_path / "deep" / "checkpoint_step000000005.pth"
    save_checkpoint(
        path,
        {
            "state_dict": expert.state_dict(),
            "optimizer": None,
            "global_step": 5,
            "global_epoch": 0,
            "model": {"name": "SyncNet_color", "width": 0.125},
        },
    )
    raw = torch.load(path, weights_only=True)
    assert {"state_dict", "optimizer", "global_step", "global_epoch"} <= raw.keys()
    assert load_model(path, "SyncNet_color").training is False
    with pytest.raises(InputError, match="is a SyncNet_color, expected a Wav2Lip"):
        load_model(path, "Wav2Lip")
    assert os.listdir(path.parent) == [path.name]


def test_newest_checkpoint_by_step(tmp_path):
    for step in (3000, 12, 1000000000):
        (tmp_path / os.path.basename(checkpoint_path(tmp_path, step))).touch()
    (tmp_path / "disc_checkpoint_step000000099.pth").touch()
    (tmp_path / "checkpoint_step000009999.pth.tmp").touch()
    assert [step for step, _ in list_checkpoints(tmp_path)] == [12, 3000, 1000000000]
    assert [step for step, _ in list_checkpoints(tmp_path, "disc_")] == [99]
    assert list_checkpoints(tmp_path / "absent") == []


def test_a_full_disk_leaves_the_old_checkpoint_alone(tmp_path, expert, monkeypatch):
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"state_dict": expert.state_dict()})
    before = path.read_bytes()

    def full(checkpoint, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {"state_dict": {}})
    assert os.listdir(tmp_path) == ["a.pth"] and path.read_bytes() == before


@pytest.mark.parametrize("style", ["torch", "bare pickle"])
def test_poisoned_pickle_is_refused_and_does_not_run(tmp_path, style):
    target = str(tmp_path / "ran")
    poison = {"state_dict": {"a": torch.zeros(1), "b": Poison(target)}}
    if style == "torch":
        torch.save(poison, tmp_path / "p.pth")
    else:
        (tmp_path / "p.pth").write_bytes(pickle.dumps(poison))
    with pytest.raises(InputError, match="is refused: .* could run code"):
        read_checkpoint(tmp_path / "p.pth")
    assert not os.path.exists(target)


def refused(path, words):
    with pytest.raises(InputError, match=words) as caught:
        load_model(path, "Wav2Lip")
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_are_no_checkpoint(tmp_path, expert):
    path = tmp_path / "a.pth"
    refused(path, "not found")
    path.write_bytes(b"")
    refused(path, "empty")
    path.write_text("\n<!DOCTYPE html><html>Sign in</html>")
    refused(path, "web page")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(path, "LFS pointer")
    torch.save(expert.state_dict(), path)
    whole = path.read_bytes()
    for share in (0.2, 0.6, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path, "damaged")
    for content in ([1, 2], {"a": 1}, {"state_dict": {}}, {"state_dict": {"a": 3}}, torch.zeros(3)):
        torch.save(content, path)
        refused(path, "no state_dict")


def foreign_files():
    yield "text", b"model: Wav2Lip\nlr: 1\n"
    yield "JSON", b'{"state_dict": 1}'
    yield "PNG", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(99)
    yield "safetensors", struct.pack("<Q", 16) + b'{"__metadata__":{' + bytes(99)
    yield "a pickle of no objects", pickle.dumps({"state_dict": [1, 2]})
    archive = io.BytesIO()
    np.savez(archive, a=np.zeros(3))
    yield "zip", archive.getvalue()
    for seed in range(400):
        rng = random.Random(seed)
        noise = rng.randbytes(rng.choice((1, 5, 50, 3000)))
        yield f"noise {seed}", (b"", b"\x80", b"\x80\x02", b"\x80\x04")[seed % 4] + noise


def test_files_of_another_kind_are_told_so(tmp_path):
    path = tmp_path / "a.pth"
    for name, content in foreign_files():
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            read_checkpoint(path)
        assert str(caught.value) == (
            f"checkpoint {path} is no checkpoint file: a .pth as torch.save writes it is expected"
        ), name


@pytest.mark.parametrize("zipped", [True, False])
def test_a_part_of_a_checkpoint_is_never_called_unsafe(tmp_path, expert, zipped):
    path = tmp_path / "a.pth"
    state = {"a": torch.zeros(300), "b": torch.zeros(2)}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in [*range(1, 100), *range(100, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path, "no checkpoint file" if length < (40 if zipped else 15) else "damaged")
    path.write_bytes(whole.replace(b"state_dict", b"state\xffdict"))
    refused(path, "damaged or truncated")


def test_other_models_are_named(tmp_path, expert):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": expert.state_dict()}, path)
    refused(path, "not a Wav2Lip.*looks like a SyncNet_color")
    torch.save({"state_dict": create_model("Wav2Lip", width=0.125).state_dict()}, path)
    refused(path, "another size")
    for width in (1e9, 0, "1"):
        torch.save({"state_dict": expert.state_dict(), "model": {"width": width}}, path)
        refused(path, "damaged.* width")


NAMES = ("Wav2Lip", "Wav2Lip_disc_qual", "SyncNet_color")
SIZES = (96, 192, 288, 384)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("img_size", SIZES)
def test_size_travels_with_the_checkpoint(tmp_path, name, img_size):
    model = create_model(name, 0.125, img_size)
    record = {"name": name, "width": 0.125, "img_size": img_size}
    assert describe_model(model) == record
    save_checkpoint(tmp_path / "a.pth", {"state_dict": model.state_dict(), "model": record})
    loaded = load_model(tmp_path / "a.pth", name)
    assert describe_model(loaded) == record
    assert all(torch.equal(a, b) for a, b in zip(
        loaded.state_dict().values(), model.state_dict().values(), strict=True))  # fmt: skip
    # without the size, as older checkpoints are, it is read off the keys
    del record["img_size"]
    save_checkpoint(tmp_path / "b.pth", {"state_dict": model.state_dict(), "model": record})
    assert load_model(tmp_path / "b.pth", name).img_size == img_size


def test_bare_state_dict_of_a_larger_model_loads(tmp_path):
    torch.save(create_model("Wav2Lip_disc_qual", img_size=192).state_dict(), tmp_path / "a.pth")
    loaded = load_model(tmp_path / "a.pth", "Wav2Lip_disc_qual")
    assert (loaded.width, loaded.img_size) == (1, 192)


def test_sizes_that_do_not_fit_are_one_line(tmp_path, expert):
    larger = create_model("SyncNet_color", 0.125, 384)
    small, large = {"state_dict": expert.state_dict()}, {"state_dict": larger.state_dict()}

    def said(model, checkpoint, **options):
        with pytest.raises(InputError) as caught:
            load_weights(model, checkpoint, "a.pth", **options)
        assert "\n" not in str(caught.value) and "a.pth" in str(caught.value)
        return str(caught.value)

    assert "img_size 96, expected 384" in said(larger, small)
    assert "img_size 384, expected 96" in said(expert, large)
    assert "img_size 384, expected 96" in said(expert, large, partial=True)
    third = {"state_dict": create_model("SyncNet_color", 0.125, 288).state_dict()}
    assert "img_size 288, expected 384" in said(larger, third, partial=True)
    cut = {k: v for k, v in large["state_dict"].items() if "stages.192.join" not in k}
    for options in ({}, {"partial": True}):
        assert "stages for img_size 384 are incomplete" in said(
            larger, {"state_dict": cut}, **options
        )
    record = {"name": "SyncNet_color", "width": 0.125, "img_size": 192}
    torch.save({**small, "model": record}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="a.pth is damaged: model img_size 192.*weights.*96"):
        load_model(tmp_path / "a.pth", "SyncNet_color")


def test_a_larger_model_starts_from_a_smaller_ones_checkpoint(expert, caplog):
    larger = create_model("SyncNet_color", 0.125, 384)
    middle = create_model("SyncNet_color", 0.125, 192)
    own = {k: v.clone() for k, v in larger.state_dict().items()}
    with caplog.at_level(logging.INFO):
        load_weights(larger, {"state_dict": middle.state_dict()}, "m.pth", partial=True)
    taken, all_of_them = len(middle.state_dict()), len(own)
    assert f"took {taken} of {all_of_them} tensors from m.pth" in caplog.text
    for key, value in larger.state_dict().items():
        assert torch.equal(value, middle.state_dict().get(key, own[key]))
    wide = {"state_dict": create_model("SyncNet_color", 0.25).state_dict()}
    with pytest.raises(InputError, match="another size"):
        load_weights(larger, wide, "w.pth", partial=True)
    poor = {"state_dict": dict(list(expert.state_dict().items())[1:])}
    with pytest.raises(InputError, match="not a SyncNet_color"):
        load_weights(larger, poor, "p.pth", partial=True)


def test_the_moving_average_is_what_is_used(tmp_path):
    model, averaged = (create_model("SyncNet_color", 0.125) for _ in range(2))
    checkpoint = {
        "state_dict": model.state_dict(),
        "ema": averaged.state_dict(),
        "model": describe_model(model),
    }
    save_checkpoint(tmp_path / "x.pth", checkpoint)
    loaded = load_model(tmp_path / "x.pth", "SyncNet_color").state_dict()
    assert all(torch.equal(value, averaged.state_dict()[key]) for key, value in loaded.items())
    save_checkpoint(tmp_path / "y.pth", checkpoint | {"ema": ["no", "weights"]})
    with pytest.raises(InputError, match="y.pth"):
        load_model(tmp_path / "y.pth", "SyncNet_color")
