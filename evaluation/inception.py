"""pytorch-fid's Inception network, on frames."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

import numpy as np

from errors import InputError
from media.files import file_label
from models.pretrained import Weights

FEATURES = 2048  # of the final average pooling
INPUT_SIZE = 299  # px: the side of the network's input
INCEPTION = Weights(
    "Inception",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "--inception_weights",
)


class InceptionFeatures:
    """pytorch-fid's network. weights: path of its file; by default see Weights.find. InputError
    where there is none, or another model's.
    """

    def __init__(self, weights: str | os.PathLike | None = None, device: str = "auto") -> None:
        from models.device import select_device

        self.device = select_device(device)
        path = INCEPTION.find(weights)
        self.label = file_label(path)
        self.network = load_inception(path).to(self.device)

    def resized(self, frame: np.ndarray):
        """uint8 BGR (H, W, 3) -> float RGB (1, 3, 299, 299) in 0..1, as the network resizes it."""
        import torch

        image = torch.from_numpy(np.ascontiguousarray(frame[..., ::-1])).to(self.device)
        image = image.permute(2, 0, 1)[None].float() / 255
        return torch.nn.functional.interpolate(
            image, size=(INPUT_SIZE, INPUT_SIZE), mode="bilinear", align_corners=False
        )

    def __call__(self, frames: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 BGR frames (H, W, 3), of any sizes -> float64 (N, 2048)."""
        import torch

        with torch.inference_mode():
            # resized one by one, so that sizes may differ; the network's own resizing of
            # 299 x 299 then changes nothing
            features = self.network(torch.cat([self.resized(frame) for frame in frames]))[0]
        features = features.flatten(1).cpu().numpy().astype(np.float64)  # (N, 2048)
        if not np.isfinite(features).all():
            raise InputError(f"Inception's features are not numbers; {self.label} is damaged")
        return features


def load_inception(path: str | os.PathLike):
    """pytorch-fid's InceptionV3 with the weights of `path`, in eval mode on the CPU."""
    import torch
    from pytorch_fid.inception import InceptionV3

    from models.checkpoint import read_checkpoint

    state = read_checkpoint(path)["state_dict"]  # tensors and nothing else
    hub = torch.hub.get_dir()
    # The constructor takes its weights from torch hub's folder and nowhere else, by a load that
    # would run code. So it gets a folder that holds only the tensors that were read above.
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "checkpoints"))
        torch.save(state, os.path.join(folder, "checkpoints", INCEPTION.name))
        torch.hub.set_dir(folder)
        try:
            return InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[FEATURES]]).eval()
        except RuntimeError as error:
            raise InputError(
                f"{path} is not pytorch-fid's Inception network; that is {INCEPTION.url}"
            ) from error
        finally:
            torch.hub.set_dir(hub)
