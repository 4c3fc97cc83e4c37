"""What the three training scripts share: device, seeds, loading, learning rates, and networks made
ready. Resuming is in training/state.py, logging in training/log.py, the loop in training/loop.py.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from datasets import (
    SyncNetContrastiveDataset,
    SyncNetDataset,
    Wav2LipDataset,
    WindowDataset,
    assemble,
)
from errors import InputError
from hparams import HParams
from models import create_model, option_names
from models.checkpoint import load_model, read_checkpoint
from models.device import select_device
from training import distributed

logger = logging.getLogger(__name__)


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch. The data have seeds of their own (datasets.py)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@dataclass(frozen=True)
class EndlessSampler(torch.utils.data.Sampler):
    """(epoch, clip) keys without end: each epoch every clip once, in an order drawn from the seed.

    A sample's place in the stream is its number alone, so starting at sample N repeats what a run
    that was never stopped would have read. Of every `batch_size` * processes samples this process
    gets its own `batch_size`.
    """

    clips: int
    seed: int
    start: int = 0
    batch_size: int = 1
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for number, key in enumerate(self._all()):
            if number // self.batch_size % self.processes == self.rank:
                yield key

    def _all(self) -> Iterator[tuple[int, int]]:
        epoch, position = divmod(self.start, self.clips)
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(self.clips)
            for clip in order[position:]:
                yield epoch, int(clip)
            epoch, position = epoch + 1, 0


def train_batches(
    dataset: WindowDataset, batch_size: int, hp: HParams, start: int
) -> Iterator[dict]:
    """Batches of this process without end, from sample number `start` of all processes' on."""
    sampler = EndlessSampler(
        len(dataset), hp.seed, start, batch_size, distributed.rank(), distributed.world_size()
    )
    return _load(dataset, sampler, batch_size, hp)


def validation_batches(dataset: WindowDataset, batch_size: int, hp: HParams) -> Iterator[dict]:
    """The same windows every time: one of every clip, or hp.eval_windows going round the split;
    shared out among processes.
    """
    count = hp.eval_windows or len(dataset)
    numbers = range(distributed.rank(), count, distributed.world_size())
    keys = [divmod(number, len(dataset)) for number in numbers]
    return _load(dataset, keys, batch_size, hp)


def _load(
    dataset: WindowDataset, keys: list | EndlessSampler, batch_size: int, hp: HParams
) -> Iterator[dict]:
    workers = min(hp.num_workers, os.cpu_count() or 1)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size,
        sampler=keys,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # the global one is the models': loading must not shift it
    )
    iterator = iter(loader)
    try:
        yield from iterator
    except InputError as error:
        # a worker's error carries its traceback as text: its last line is the message
        said = str(error).strip().splitlines()[-1]
        raise InputError(said.removeprefix("errors.InputError: ")) from None
    finally:
        # now, not when it is collected: workers ignore SIGTERM, and at its own end Python would
        # wait for them for ever
        if workers:
            iterator._shutdown_workers()


def _start_worker(_: int) -> None:
    import signal

    import cv2

    from media.workers import end_with_parent

    # a terminal or a job scheduler asks all processes to stop, but the main one answers: it
    # finishes its step, for which it needs its workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

    # torch's own watch takes the fork server, Python 3.14's default, for the parent: then workers
    # and server keep each other alive for ever
    end_with_parent(lambda: os._exit(1))
    cv2.setNumThreads(0)  # one thread per worker process, or they fight over the cores
    torch.set_num_threads(1)


def to_device(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """A loaded batch on `device`, as the train steps take it (datasets.assemble)."""
    return assemble({name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()})


def freeze(expert: nn.Module, batch_stats: bool) -> nn.Module:
    """The expert as a judge: no gradients of its own, running statistics fixed (paper section 3.2);
    batch_stats: each batch's instead, as the released scripts never leave train mode.
    """
    return expert.requires_grad_(False).train(batch_stats)


def load_imagenet(encoder: nn.Module, source: str) -> None:
    """torchvision's ImageNet weights into a crossattn's fresh face_encoder. source: a file, or
    "download". InputError where they cannot be had or do not fit.
    """
    if source == "download":
        from torchvision.models import get_model_weights

        try:
            weights = get_model_weights(encoder.kind).DEFAULT
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"the weights of {encoder.kind} do not download: {reason}") from error
    else:
        state = read_checkpoint(source)["state_dict"]
    try:
        encoder.load_imagenet(state)
    except InputError as error:
        raise InputError(f"face_encoder_weights={source} is not it: {error}") from error


def freeze_norms(model: nn.Module) -> None:
    """Let batch norms judge by their running statistics in training too, and keep these.

    Weights from large batches are far off by the statistics of small ones: a generator taught with
    batches of 128 has twice its L1 in batches of 8, and unlearns more than it learns.
    """

    def rest(called: nn.Module, _: tuple) -> None:
        for module in called.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    model.register_forward_pre_hook(rest)  # each step's model.train() wakes them


def set_learning_rates(step: int, rates: dict[Optimizer, float], hp: HParams) -> None:
    """Give every optimizer its rate for step `step` (from 0): constant, or hp's warm-up and cosine.

    A function of the step alone, so that a resumed run goes on with the right one.
    """
    share = min(1.0, (step + 1) / hp.warmup_steps) if hp.warmup_steps else 1.0
    if hp.cosine and hp.nsteps > hp.warmup_steps:
        done = max(0.0, (step - hp.warmup_steps) / (hp.nsteps - hp.warmup_steps))
        share *= 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    for optimizer, rate in rates.items():
        for group in optimizer.param_groups:
            group["lr"] = rate * share


def place(model: nn.Module, device: torch.device, hp: HParams) -> nn.Module:
    """The model on its device as hp asks for it, its batch norms seeing all processes' batches."""
    model = distributed.sync_batch_norm(model, device)
    return model.to(device, memory_format=torch.channels_last if hp.channels_last else None)


def speed_up(model: nn.Module, device: torch.device, hp: HParams) -> nn.Module:
    """The model as training calls it, with the weights of `model`, whose keys are saved."""
    if distributed.world_size() > 1:  # gradients are averaged, batch statistics the same everywhere
        devices = [device.index] if device.type == "cuda" else None
        model = nn.parallel.DistributedDataParallel(model, devices, broadcast_buffers=False)
    return torch.compile(model) if hp.compile else model


def create_adam(
    model: nn.Module, rate: float, device: torch.device, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Adam:
    """Adam, in one kernel on a GPU."""
    return torch.optim.Adam(
        model.parameters(), lr=rate, betas=betas, fused=True if device.type == "cuda" else None
    )


def create_disc(hp: HParams, device: torch.device) -> nn.Module:
    """A fresh quality discriminator."""
    return place(create_model("Wav2Lip_disc_qual", hp.width, hp.img_size), device, hp)


def create_optimizers(model, disc, hp: HParams, device) -> tuple:
    """Adam for both networks, with a first beta of 0.5 as usual for adversarial training."""
    rates = {model: hp.initial_learning_rate, disc: hp.disc_initial_learning_rate}
    return tuple(create_adam(*made, device, (hp.disc_beta1, 0.999)) for made in rates.items())


def prepare_expert(args: argparse.Namespace, hp: HParams, device) -> tuple:
    """What the expert's training begins with: its training set, a fresh expert, and how many clips
    make a batch.
    """
    seed_everything(hp.seed)
    contrastive = hp.syncnet_loss == "contrastive"
    kind = SyncNetContrastiveDataset if contrastive else SyncNetDataset
    train_set = kind(args.data_root, "train", hp, args.filelists)
    model = place(create_model("SyncNet_color", hp.width, hp.img_size), device, hp)
    windows = hp.contrastive_windows if contrastive else 1
    return train_set, model, max(1, hp.syncnet_batch_size // windows)


def prepare_generator(args: argparse.Namespace, hp: HParams, device) -> tuple:
    """What both generator trainings begin with: training and validation set, the frozen expert, a
    fresh generator. InputError where data or expert are unusable.
    """
    seed_everything(hp.seed)
    expert = load_model(args.syncnet_checkpoint_path, "SyncNet_color").to(device)
    if expert.img_size != hp.img_size:
        raise InputError(
            f"the expert {args.syncnet_checkpoint_path} judges pictures of {expert.img_size} px, "
            f"the generator makes {hp.img_size} px: train an expert with img_size={hp.img_size}"
        )
    train_set = Wav2LipDataset(args.data_root, "train", hp, args.filelists)
    val_set = Wav2LipDataset(args.data_root, "val", hp, args.filelists)
    options = {name: getattr(hp, name) for name in option_names(hp.model)}
    model = create_model(hp.model, hp.width, hp.img_size, **options)
    if hp.model == "crossattn" and hp.face_encoder_weights:
        load_imagenet(model.face_encoder, hp.face_encoder_weights)
    model = place(model, device, hp)
    if hp.freeze_norm:
        freeze_norms(model)
    return train_set, val_set, freeze(expert, hp.expert_batch_stats), model


def launch(args: argparse.Namespace, hp: HParams, check: Callable, train: Callable) -> None:
    """check(args, hp) where --check asks for it, else train(args, hp, device): on this process'
    device, under torchrun as a member of its group.
    """
    if args.check:
        check(args, hp)
        return
    with distributed.process_group(select_device(args.device)) as device:
        train(args, hp, device)
