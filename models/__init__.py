"""The networks. `create_model(name)` builds one; nothing here knows of hyper-parameters or
files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from errors import InputError

if TYPE_CHECKING:
    from torch import nn

NAMES = ("Wav2Lip", "Wav2Lip_disc_qual", "SyncNet_color")


def create_model(name: str, width: float = 1.0) -> nn.Module:
    """A model by its released name, freshly initialised; torch loads only here."""
    from models.syncnet import SyncNet_color
    from models.wav2lip import Wav2Lip, Wav2Lip_disc_qual

    models = {model.__name__: model for model in (Wav2Lip, Wav2Lip_disc_qual, SyncNet_color)}
    if name not in models:
        raise InputError(f"unknown model {name!r}; choose one of {', '.join(models)}")
    return models[name](width=width)
