"""The networks that evaluation/quality.py judges with, as far as their weights are there."""

from __future__ import annotations

import os
import warnings

from errors import InputError, require_file
from media.files import file_label
from models.pretrained import Weights

ALEXNET = Weights(
    "AlexNet", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "--lpips_weights"
)


def load_lpips(path: str | os.PathLike | None = None, device: str = "auto"):
    """The LPIPS network (version 0.1, AlexNet) with torchvision's weights of `path`.

    The linear layers come with the lpips package. InputError where the weights are not to be had,
    or another network's.
    """
    from lpips import LPIPS

    from models.checkpoint import read_checkpoint
    from models.device import select_device

    found = ALEXNET.find(path)
    state = read_checkpoint(found)["state_dict"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how the package calls torchvision
        model = LPIPS(net="alex", pnet_rand=True, verbose=False)
    try:
        for part in model.net.children():  # each convolution is called by its place in AlexNet
            for number, layer in part.named_children():
                names = list(layer.state_dict())
                layer.load_state_dict({n: state[f"features.{number}.{n}"] for n in names})
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{found} is not torchvision's AlexNet; that is {ALEXNET.url}") from error
    model.label = file_label(found)
    return model.to(select_device(device))


def load_sync_expert(path: str | os.PathLike, device: str = "auto"):
    """The SyncNet_color that measures lsd; InputError for any other model."""
    from experts.offset import load_expert

    expert = load_expert(require_file(path, "--expert"), device)
    if expert.kind != "SyncNet_color":
        raise InputError(f"lsd needs a SyncNet_color: {path} is a {expert.kind}")
    return expert


def available_metrics(
    lpips_weights: str | os.PathLike | None = None,
    sface_weights: str | os.PathLike | None = None,
    expert: str | os.PathLike | None = None,
    device: str = "auto",
) -> tuple[dict[str, object], list[dict[str, str]]]:
    """({metric: its network} for QualityMeter, what is left out as {"metric", "file", "where"}).

    A file that is named must be good (InputError); one that is not named may be absent.
    """
    from evaluation.identity import SFACE, FaceRecognizer

    networks, missing = {}, []
    for metric, weights, path, load in (
        ("lpips", ALEXNET, lpips_weights, lambda path: load_lpips(path, device)),
        ("identity", SFACE, sface_weights, FaceRecognizer),
    ):
        if path is None:
            try:
                path = weights.find()
            except InputError:
                where = f"{weights.url} into checkpoints/, or {weights.flag}"
                missing.append({"metric": metric, "file": weights.name, "where": where})
                continue
        networks[metric] = load(path)
    if expert is None:
        where = "train one (color_syncnet_train.py) or take the released one; --expert"
        missing.append({"metric": "lsd", "file": "SyncNet_color checkpoint", "where": where})
    else:
        networks["lsd"] = load_sync_expert(expert, device)
    return networks, missing
