"""Three steps of each training on a fixed batch of 2, shared out among the processes of torchrun.

Run by test_distributed.py: ddp_steps.py OUT. In float64, since Adam turns the rounding of gradients
that are nearly zero into whole steps.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import color_syncnet_train
import hq_wav2lip_train
import wav2lip_train
from hparams import HParams
from models import create_model
from training import distributed
from training.precision import Precision
from training.setup import create_adam, freeze, place, speed_up

HP = HParams(width=0.125)
BATCH = 2


def draw(generator, *shape, low=0.0, high=1.0):
    """This process' share of a batch of uniform numbers."""
    numbers = torch.rand((BATCH, *shape), generator=generator, dtype=torch.float64)
    numbers = low + (high - low) * numbers
    share = BATCH // distributed.world_size()
    return numbers[distributed.rank() * share :][:share]


def batches(expert):
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        mel = draw(generator, 1, 80, 16, low=-4, high=4)
        if expert:
            y = torch.tensor([[1.0], [0.0]])
            share = BATCH // distributed.world_size()
            y = y[distributed.rank() * share :][:share]
            yield {"x": draw(generator, 15, 48, 96), "mel": mel, "y": y}
        else:
            yield {
                "x": draw(generator, 6, 5, 96, 96),
                "indiv_mels": draw(generator, 5, 1, 80, 16, low=-4, high=4),
                "mel": mel,
                "y": draw(generator, 3, 5, 96, 96),
            }


def build(name, device):
    torch.manual_seed(0)
    model = place(create_model(name, width=HP.width).double(), device, HP)
    return model, speed_up(model, device, HP), create_adam(model, 1e-4, device)


def main(out):
    torch.set_num_threads(1)
    with distributed.process_group(torch.device("cpu")) as device:
        precision = Precision(HP, device)
        expert, called, optimizer = build("SyncNet_color", device)
        for batch in batches(expert=True):
            color_syncnet_train.train_step(batch, called, optimizer, HP, precision)
        states = {"expert": expert.state_dict()}

        judge = freeze(create_model("SyncNet_color", width=HP.width).double(), False)
        judge.load_state_dict(expert.state_dict())
        model, called, optimizer = build("Wav2Lip", device)
        for batch in batches(expert=False):
            wav2lip_train.train_step(batch, called, judge, optimizer, 0.03, precision)
        states["wav2lip"] = model.state_dict()

        model, called, optimizer = build("Wav2Lip", device)
        disc, called_disc, disc_optimizer = build("Wav2Lip_disc_qual", device)
        for batch in batches(expert=False):
            hq_wav2lip_train.train_step(
                batch, called, disc, judge, optimizer, disc_optimizer, 0.03, 0.07, precision,
                called_disc,
            )  # fmt: skip
        states |= {"hq": model.state_dict(), "disc": disc.state_dict()}
        if distributed.is_main():
            torch.save(states, out)


if __name__ == "__main__":
    main(sys.argv[1])
