import os
import pickle
import zipfile

import pytest
import torch
from conftest import Poison

from checkpoint import (
    checkpoint_path,
    list_checkpoints,
    load_model,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)
from errors import InputError
from models import create_model


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
    (tmp_path / "checkpoint_step000009999.pth.part").touch()
    assert [step for step, _ in list_checkpoints(tmp_path)] == [12, 3000, 1000000000]
    assert [step for step, _ in list_checkpoints(tmp_path, "disc_")] == [99]
    assert list_checkpoints(tmp_path / "absent") == []


@pytest.mark.parametrize("style", ["torch", "bare pickle"])
def test_poisoned_pickle_is_refused_and_does_not_run(tmp_path, style):
    target = str(tmp_path / "ran")
    poison = {"state_dict": {"a": torch.zeros(1), "b": Poison(target)}}
    if style == "torch":
        torch.save(poison, tmp_path / "p.pth")
    else:
        (tmp_path / "p.pth").write_bytes(pickle.dumps(poison))
    with pytest.raises(InputError, match="refused"):
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
    path.write_bytes(b"\x00\x01\x02" * 1000)
    refused(path, "damaged|refused")
    torch.save(expert.state_dict(), path)
    whole = path.read_bytes()
    for share in (0.2, 0.6, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        refused(path, "damaged")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no model in here")
    refused(path, "damaged|refused")
    for content in ([1, 2], {"a": 1}, {"state_dict": {}}, {"state_dict": {"a": 3}}, torch.zeros(3)):
        torch.save(content, path)
        refused(path, "no state_dict")


def test_other_models_are_named(tmp_path, expert):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": expert.state_dict()}, path)
    refused(path, "not a Wav2Lip.*looks like a SyncNet_color")
    torch.save({"state_dict": create_model("Wav2Lip", width=0.125).state_dict()}, path)
    refused(path, "another size")
    torch.save({"state_dict": expert.state_dict(), "model": {"width": 1e9}}, path)
    refused(path, "width")
