"""Checkpoints: one dict in the released format and more, written atomically, read without running
anything in it.

Released keys: `state_dict`, `optimizer`, `global_step`, `global_epoch`. Ours: `model` (name and
width), `hparams`, `syncnet_wt`, `rng`. Files travel both ways: released ones load here, ours load
there.
"""

from __future__ import annotations

import os
import pickle
import re
import warnings
import zipfile
from typing import TYPE_CHECKING

from errors import InputError, require_file

if TYPE_CHECKING:
    from torch import nn

CHECKPOINT_NAME = re.compile(r"checkpoint_step(\d{9,})\.pth")


def read_checkpoint(path: str | os.PathLike) -> dict:
    """The dict in a checkpoint file, tensors on the CPU. A bare state dict comes back as
    {"state_dict": ...}.

    Only tensors and plain containers are accepted (`weights_only=True`): a file that would run code
    on loading is refused. A `module.` prefix, left by multi-GPU training, is stripped. TorchScript
    archives are refused.
    """
    import torch

    path = require_file(path, "checkpoint")
    _refuse_text(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused in words below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            reason = "it holds objects other than tensors, which could run code; not loaded"
        else:
            reason = "damaged or not a PyTorch file"
        raise InputError(f"checkpoint {path} is refused: {reason}") from error
    except (
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        OverflowError,
        UnicodeDecodeError,
        AssertionError,
        MemoryError,
        OSError,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(
            f"checkpoint {path} is damaged, truncated or not a PyTorch file ({reason})"
        ) from error
    if (
        isinstance(checkpoint, dict)
        and "state_dict" not in checkpoint
        and _is_state_dict(checkpoint)
    ):
        checkpoint = {"state_dict": checkpoint}
    if not isinstance(checkpoint, dict) or not _is_state_dict(checkpoint.get("state_dict")):
        raise InputError(
            f"checkpoint {path} holds no state_dict: it is not a checkpoint of a model"
        )
    checkpoint["state_dict"] = {
        name.removeprefix("module."): value for name, value in checkpoint["state_dict"].items()
    }
    return checkpoint


def _is_state_dict(value: object) -> bool:
    import torch

    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor)
            for name, tensor in value.items()
        )
    )


def _refuse_text(path: str) -> None:
    """A download page or an LFS pointer is what people most often have instead."""
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise InputError(
            f"checkpoint {path} is a web page (HTML), not a model: download the file itself"
        )
    if head.startswith(b"version https://git-lfs"):
        raise InputError(
            f"checkpoint {path} is a Git LFS pointer, not a model: fetch the file with git lfs pull"
        )


def load_weights(model: nn.Module, checkpoint: dict, path: str | os.PathLike) -> None:
    """Put a checkpoint's weights into `model`; InputError where the file is another model's."""
    expected, found = model.state_dict(), checkpoint["state_dict"]
    name = type(model).__name__
    if expected.keys() != found.keys():
        missing, extra = len(expected.keys() - found.keys()), len(found.keys() - expected.keys())
        raise InputError(
            f"checkpoint {path} is not a {name}: {missing} of its {len(expected)} "
            f"parameters are missing and {extra} are foreign{_guess(checkpoint)}"
        )
    for key, value in expected.items():
        if value.shape != found[key].shape:
            raise InputError(
                f"checkpoint {path} is a {name} of another size: {key} is "
                f"{tuple(found[key].shape)}, expected {tuple(value.shape)}"
            )
    model.load_state_dict(found)


def _guess(checkpoint: dict) -> str:
    """Which model the file holds, by a key only that model has."""
    keys = checkpoint["state_dict"].keys()
    for key, name in (
        ("output_block.1.weight", "Wav2Lip generator"),
        ("binary_pred.0.weight", "Wav2Lip_disc_qual"),
        ("face_encoder.0.conv_block.0.weight", "SyncNet_color expert"),
        ("netcnnlip.0.weight", "SyncNet v2 (evaluation)"),
        ("conv3_3_norm.weight", "S3FD face detector"),
    ):
        if key in keys:
            return f"; it looks like a {name}"
    return ""


def load_model(path: str | os.PathLike, name: str) -> nn.Module:
    """A model in eval mode with the weights of a checkpoint; its width is the one the checkpoint
    was written with.
    """
    from models import create_model

    checkpoint = read_checkpoint(path)
    described = checkpoint.get("model")
    described = described if isinstance(described, dict) else {}
    if described.get("name", name) != name:
        raise InputError(f"checkpoint {path} is a {described['name']}, expected a {name}")
    width = described.get("width", 1.0)
    if not isinstance(width, (int, float)) or not 0 < width <= 4:
        raise InputError(f"checkpoint {path} is damaged: model width {width!r}")
    model = create_model(name, width=width)
    load_weights(model, checkpoint, path)
    return model.eval()


def save_checkpoint(path: str | os.PathLike, checkpoint: dict) -> None:
    """Write to a temporary name, flush to the disk, rename: under its name it is whole."""
    import torch

    temporary = f"{os.fspath(path)}.part"
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(temporary, "wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def list_checkpoints(folder: str | os.PathLike, prefix: str = "") -> list[tuple[int, str]]:
    """(step, path) of every `<prefix>checkpoint_step000000123.pth` in a folder, oldest first."""
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        match = (
            CHECKPOINT_NAME.fullmatch(name.removeprefix(prefix))
            if name.startswith(prefix)
            else None
        )
        if match:
            found.append((int(match[1]), os.path.join(folder, name)))
    return sorted(found)


def checkpoint_path(folder: str | os.PathLike, step: int, prefix: str = "") -> str:
    return os.path.join(folder, f"{prefix}checkpoint_step{step:09d}.pth")
