"""The networks. `create_model(name)` builds one; nothing here knows of hyper-parameters or
files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from errors import InputError

if TYPE_CHECKING:
    from torch import nn

NAMES = ("Wav2Lip", "Wav2Lip_disc_qual", "SyncNet_color", "SyncNet_v2", "crossattn")
GENERATORS = ("Wav2Lip", "crossattn")


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
    from models.syncnet import SyncNet_color
    from models.syncnet_v2 import SyncNet_v2
    from models.wav2lip import Wav2Lip, Wav2Lip_disc_qual

    classes = (Wav2Lip, Wav2Lip_disc_qual, SyncNet_color, SyncNet_v2)
    models = {model.__name__: model for model in classes}
    if name not in models:
        raise InputError(f"unknown model {name!r}; choose one of {', '.join(NAMES)}")
    if name == "SyncNet_v2":
        if img_size != 96:
            raise InputError(f"SyncNet_v2 has one picture size: img_size {img_size} is not for it")
        return SyncNet_v2(width=width)
    return models[name](width=width, img_size=img_size)
