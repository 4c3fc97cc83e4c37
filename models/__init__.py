"""The networks: `create_model(name)` builds one, `from models import Wav2Lip` has its class. The
networks know of no hyper-parameters or files (checkpoint.py does).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from errors import InputError

if TYPE_CHECKING:
    from torch import nn

NAMES = ("Wav2Lip", "Wav2Lip_disc_qual", "SyncNet_color", "SyncNet_v2", "crossattn")
GENERATORS = ("Wav2Lip", "crossattn")
CLASSES = {  # by the module that has them
    "Wav2Lip": "wav2lip",
    "Wav2Lip_disc_qual": "wav2lip",
    "SyncNet_color": "syncnet",
    "SyncNet_v2": "syncnet_v2",
}


def __getattr__(name: str) -> type[nn.Module]:
    """A network's class, loaded (and torch with it) when it is first asked for."""
    if name not in CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"models.{CLASSES[name]}"), name)


def create_model(
    name: str,
    width: float = 1.0,
    img_size: int = 96,
    audio_encoder: str = "conv1d_lstm",
    face_encoder: str = "resnet50",
) -> nn.Module:
    """A model by its released name, or "crossattn", freshly initialised; torch loads only here.

    width: channels of every layer times this, above 0 and at most 4, 1 = released. img_size: side
    of the face picture: 96 (released), 192, 288 or 384; for crossattn any multiple of 32 from 64
    on, of which training takes those that an expert has too; SyncNet_v2 has its own fixed size.
    audio_encoder, face_encoder: of crossattn. InputError names what there is.
    """
    if not 0 < width <= 4:
        raise InputError(f"no model has width {width}: it must be above 0 and at most 4")
    if name == "crossattn":  # torchvision loads only here
        from models.crossattn import CrossAttention

        return CrossAttention(width, img_size, audio_encoder, face_encoder)
    if name not in CLASSES:
        raise InputError(f"unknown model {name!r}; choose one of {', '.join(NAMES)}")
    model = __getattr__(name)
    if name == "SyncNet_v2":
        if img_size != 96:
            raise InputError(f"SyncNet_v2 has one picture size: img_size {img_size} is not for it")
        return model(width=width)
    return model(width=width, img_size=img_size)
