"""The networks: `create_model(name)` builds one, `from models import Wav2Lip` has its class. The
networks know of no hyper-parameters or files (checkpoint.py does).
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING

from errors import InputError

if TYPE_CHECKING:
    from torch import nn

CLASSES = {  # a model is its file, and a line here
    "Wav2Lip": "wav2lip.Wav2Lip",
    "Wav2Lip_disc_qual": "wav2lip.Wav2Lip_disc_qual",
    "SyncNet_color": "syncnet.SyncNet_color",
    "SyncNet_v2": "syncnet_v2.SyncNet_v2",
    "crossattn": "crossattn.CrossAttention",
}
NAMES = tuple(CLASSES)
GENERATORS = ("Wav2Lip", "crossattn")  # the values of --hparams model=


def __getattr__(name: str) -> type[nn.Module]:
    """A network's class, loaded (and torch with it) when it is first asked for."""
    if not CLASSES.get(name, "").endswith(f".{name}"):  # "crossattn" is its module's name
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return model_class(name)


def model_class(name: str) -> type[nn.Module]:
    """The class called `name` above; InputError names what there is."""
    if name not in CLASSES:
        raise InputError(f"unknown model {name!r}; choose one of {', '.join(NAMES)}")
    module, _, cls = CLASSES[name].partition(".")
    return getattr(importlib.import_module(f"models.{module}"), cls)


def option_names(name: str) -> list[str]:
    """What the model takes beside width and img_size."""
    takes = inspect.signature(model_class(name)).parameters
    return [option for option in takes if option not in ("width", "img_size")]


def create_model(
    name: str, width: float = 1.0, img_size: int = 96, *options: object, **named: object
) -> nn.Module:
    """A model by its released name, or "crossattn", freshly initialised; torch loads only here.

    width: channels of every layer times this, above 0 and at most 4, 1 = released. img_size: side
    of the face picture: 96 (released), 192, 288 or 384; for crossattn any multiple of 32 from 64
    on, of which training takes those that an expert has too; SyncNet_v2 has its own fixed size.
    options: of crossattn, audio_encoder and face_encoder. InputError names what there is.
    """
    if not 0 < width <= 4:
        raise InputError(f"no model has width {width}: it must be above 0 and at most 4")
    return model_class(name)(width, img_size, *options, **named)
