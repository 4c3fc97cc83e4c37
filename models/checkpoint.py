"""Checkpoints: one dict in the released format and more, written atomically, read without running
anything in it.

Released keys: `state_dict`, `optimizer`, `global_step`, `global_epoch`. Ours: `model`
(describe_model), `hparams`, `ema`, `scaler`, `syncnet_wt`, `gate_step`, `best`, `sampler`, `rng`
(training/state.py). Files travel both ways: released ones load here, ours load there.
"""

from __future__ import annotations

import logging
import os
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, KeysView
from typing import TYPE_CHECKING

from errors import InputError, require_file
from media.files import replacing

if TYPE_CHECKING:
    from torch import nn

CHECKPOINT_NAME = re.compile(r"checkpoint_step(\d{9,})\.pth")
ZIP_HEAD = re.compile(rb"PK\x03\x04.{26}[^/]*/data\.pkl", re.DOTALL)  # how torch.save's begin
LEGACY_HEAD = pickle.dumps(0x1950A86A20F9469CFC6C, 2)  # and those from before PyTorch 1.6
STAGE_KEY = re.compile(r"face_(?:en|de)coder_stages\.(192|288|384)\.")  # models/conv.py

logger = logging.getLogger(__name__)


def read_checkpoint(path: str | os.PathLike) -> dict:
    """The dict in a checkpoint file, tensors on the CPU. A bare state dict comes back as
    {"state_dict": ...}.

    Only tensors and plain containers are accepted (`weights_only=True`): a file that would run code
    on loading is refused. A `module.` prefix, left by multi-GPU training, is stripped. TorchScript
    archives are refused.
    """
    import torch

    path = require_file(path, "checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused in words below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, struct.error, zipfile.BadZipFile, RuntimeError, OSError, EOFError,
        LookupError, ValueError, TypeError, AttributeError, OverflowError, AssertionError,
        MemoryError,
    ) as error:  # fmt: skip
        raise InputError(f"checkpoint {path} {_fault(path, error)}") from error
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
    if checkpoint.get("ema") is not None and not _is_state_dict(checkpoint["ema"]):
        raise InputError(f"checkpoint {path} is damaged: its moving average holds no weights")
    checkpoint["state_dict"] = {
        name.removeprefix("module."): value for name, value in checkpoint["state_dict"].items()
    }
    return checkpoint


def _fault(path: str, error: Exception) -> str:
    """What a file is that torch.load refuses with `error`. The error does not tell: it takes any
    bytes for a pickle's instructions, and those that it does not know for unsafe ones.
    """
    with open(path, "rb") as file:
        head = file.read(512)
    text, reason = head.lstrip().lower(), " ".join(str(error).split())
    reason = reason.rpartition("WeightsUnpickler error: ")[2]  # before it, advice on weights_only
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page (HTML), not a model: download the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not a model: fetch the file with git lfs pull"
    if "TorchScript" in reason:
        return "is a TorchScript archive, which holds code: a .pth with a state_dict is expected"
    unsafe = isinstance(error, pickle.UnpicklingError) and "Unsupported operand" not in reason
    if head.startswith(LEGACY_HEAD):  # a name that is cut off is a foreign one to torch
        unsafe = unsafe and _pickles_objects(path, 4)  # number, version, system, content
    elif not ZIP_HEAD.match(head):
        unsafe = _pickles_objects(path, 1)
        if not unsafe:
            return "is no checkpoint file: a .pth as torch.save writes it is expected"
    if unsafe:
        return "is refused: it holds objects other than tensors, which could run code; not loaded"
    return f"is damaged or truncated ({reason[:120] or type(error).__name__})"


def _pickles_objects(path: str, pickles: int) -> bool:
    """Whether a file begins with so many whole pickles, objects in them. Nothing of it is run."""
    with open(path, "rb") as file:
        try:
            names = {code.name for _ in range(pickles) for code, *_ in pickletools.genops(file)}
        except (ValueError, OverflowError, MemoryError):  # not a pickle, or not all of one
            return False
    return not names.isdisjoint(("GLOBAL", "STACK_GLOBAL", "INST"))


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


def load_weights(
    model: nn.Module, checkpoint: dict, path: str | os.PathLike, partial: bool = False
) -> None:
    """Put a checkpoint's weights into `model`; InputError where the file is another model's.

    partial: the file may be of a smaller img_size. The stages that it lacks keep their values, and
    a freshly made model then starts as the smaller one (models/conv.py).
    """
    expected, found = model.state_dict(), checkpoint["state_dict"]
    name = _name(model)
    _check_keys(expected.keys(), checkpoint, path, name, partial)
    for key, value in found.items():
        if value.shape != expected[key].shape:
            raise InputError(
                f"checkpoint {path} is a {name} of another size: {key} is "
                f"{tuple(value.shape)}, expected {tuple(expected[key].shape)}"
            )
        if not value.isfinite().all():  # of a training that diverged: its pictures would be grey
            raise InputError(
                f"checkpoint {path} is damaged: {key} holds numbers that are not finite"
            )
    size = _record(checkpoint).get("img_size")
    any_size = getattr(model, "fits_any_size", False)
    if any_size and not partial and size not in (None, model.img_size):
        raise InputError(
            f"checkpoint {path} is a {name} of another size: img_size {size}, "
            f"expected {model.img_size}"
        )
    model.load_state_dict(found, strict=not partial)
    if len(found) < len(expected):
        taken = f"{len(found)} of {len(expected)} tensors"
        size = _img_size(found)
        logger.info("took %s from %s, of img_size %d; the rest begins afresh", taken, path, size)


def _check_keys(
    expected: KeysView[str], checkpoint: dict, path: str | os.PathLike, name: str, partial: bool
) -> None:
    """InputError unless a checkpoint has the expected keys, or with `partial` all but those of
    stages larger than its img_size.
    """
    found = checkpoint["state_dict"].keys()
    lacking, foreign = expected - found, found - expected
    if not all(STAGE_KEY.match(key) for key in lacking | foreign):
        raise InputError(
            f"checkpoint {path} is not a {name}: {len(lacking)} of its {len(expected)} "
            f"parameters are missing and {len(foreign)} are foreign{_guess(checkpoint)}"
        )
    size, wanted = _img_size(found), _img_size(expected)
    incomplete = not foreign and any(_img_size([key]) <= size for key in lacking)
    if incomplete or (foreign and size == wanted):
        raise InputError(
            f"checkpoint {path} is damaged: its stages for img_size {size} are incomplete"
        )
    if foreign or (lacking and not partial):
        raise InputError(
            f"checkpoint {path} is a {name} of another size: img_size {size}, expected {wanted}"
        )


def _img_size(keys: Iterable[str]) -> int:
    """The picture size that a state dict with these keys is for: 96 where no stage was added."""
    return max((int(match[1]) for match in map(STAGE_KEY.match, keys) if match), default=96)


def describe_model(model: nn.Module) -> dict[str, str | float | int]:
    """The record "model" of a checkpoint: create_model's arguments, which load_model needs."""
    record = {"name": _name(model), "width": model.width, "img_size": model.img_size}
    return record | getattr(model, "options", {})


def _record(checkpoint: dict) -> dict:
    """describe_model's record in a file; {} in released ones."""
    record = checkpoint.get("model")
    return record if isinstance(record, dict) else {}


def _name(model: nn.Module) -> str:
    return getattr(model, "name", type(model).__name__)


def _guess(checkpoint: dict) -> str:
    """Which model the file holds, by its record or a key only that model has."""
    from models import NAMES, model_class

    keys, record = checkpoint["state_dict"].keys(), _record(checkpoint)
    if record.get("name") == "crossattn":
        encoders = f"{record.get('audio_encoder')} and {record.get('face_encoder')}"
        return f"; it is a crossattn generator of {encoders}"
    for name in NAMES:
        if model_class(name).key in keys:
            return f"; it looks like a {name}"
    return "; it looks like the S3FD face detector" if "conv3_3_norm.weight" in keys else ""


def load_model(path: str | os.PathLike, name: str) -> nn.Module:
    """A model in eval mode with the weights of a checkpoint, their moving average where it holds
    one ("ema"), of the width and img_size that the checkpoint was written with: its record "model",
    and where there is none, as in released files, width 1 and the img_size that its keys are for.
    """
    return _rebuilt(read_checkpoint(path), path, name)


def load_generator(path: str | os.PathLike) -> nn.Module:
    """load_model of whichever generator the file is of; Wav2Lip where it does not say."""
    from models import GENERATORS

    checkpoint = read_checkpoint(path)
    name = _record(checkpoint).get("name")
    return _rebuilt(checkpoint, path, name if name in GENERATORS else "Wav2Lip")


def _rebuilt(checkpoint: dict, path: str | os.PathLike, name: str) -> nn.Module:
    from models import create_model, model_class, option_names

    described = _record(checkpoint)
    if described.get("name", name) != name:
        raise InputError(f"checkpoint {path} is a {described['name']}, expected a {name}")
    width = described.get("width", 1.0)
    if not isinstance(width, (int, float)):
        raise InputError(f"checkpoint {path} is damaged: model width {width!r}")
    img_size = _img_size(checkpoint["state_dict"])
    if getattr(model_class(name), "fits_any_size", False):
        img_size = described.get("img_size", 96)
    if described.get("img_size", img_size) != img_size:
        raise InputError(
            f"checkpoint {path} is damaged: model img_size {described['img_size']!r}, "
            f"but its weights are for {img_size}"
        )
    options = {key: described[key] for key in option_names(name) if key in described}
    try:
        model = create_model(name, width=width, img_size=img_size, **options)
    except InputError as error:
        raise InputError(f"checkpoint {path} is damaged: {error}") from error
    if checkpoint.get("ema"):
        checkpoint = {**checkpoint, "state_dict": checkpoint["ema"]}
    load_weights(model, checkpoint, path)
    return model.eval()


def save_checkpoint(path: str | os.PathLike, checkpoint: dict) -> None:
    """Write to a temporary name, flush to the disk, rename: under its name it is whole."""
    import torch

    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with replacing(path, "wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())


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
