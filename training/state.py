"""A run's checkpoints: everything that decides its next step, written, pruned and resumed."""

from __future__ import annotations

import logging
import os
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from errors import InputError
from hparams import HParams
from models.checkpoint import (
    checkpoint_path,
    describe_model,
    list_checkpoints,
    load_weights,
    read_checkpoint,
    save_checkpoint,
)
from training import distributed
from training.precision import Ema, Precision

logger = logging.getLogger(__name__)
BEST = "best.pth"


@dataclass
class Checkpoints:
    """Saves and resumes one run's networks in `folder`.

    parts: prefix -> (model, optimizer). The main network has the prefix "" and is saved as
    checkpoint_step*.pth, a discriminator "disc_" and disc_checkpoint_step*.pth. The best by
    validation is kept beside them as best.pth (disc_best.pth).
    """

    folder: str
    hp: HParams
    parts: dict[str, tuple[nn.Module, Optimizer]]
    precision: Precision
    ema: Ema | None = None

    def resume(self, start_paths: dict[str, str | None]) -> dict:
        """Load the newest checkpoint of the folder that can be read, or else the files in
        start_paths by prefix.

        Returns the run's state: global_step, global_epoch, samples (drawn so far), syncnet_wt,
        gate_step (when the gate opened, -1: not yet), best (validation score, smaller is better).
        InputError where the folder holds checkpoints and none can be read, or a file does not fit.
        """
        state = {"global_step": 0, "global_epoch": 0, "samples": -1, "gate_step": -1}
        state |= {"syncnet_wt": self.hp.syncnet_wt, "best": float("inf")}
        found = self._newest_readable()
        weights_only = found is None and self.hp.finetune
        if found is None:
            paths = {prefix: path for prefix, path in start_paths.items() if path}
            found = {prefix: (path, read_checkpoint(path)) for prefix, path in paths.items()}
        for prefix, (path, checkpoint) in found.items():
            model, optimizer = self.parts[prefix]
            # a smaller model's weights may start a larger one, but cannot continue its run
            load_weights(model, checkpoint, path, partial=weights_only)
            logger.info("loaded %s of step %s", path, checkpoint.get("global_step", 0))
            if self.ema and not prefix:
                averaged = {"state_dict": checkpoint.get("ema") or checkpoint["state_dict"]}
                load_weights(self.ema.model, checkpoint | averaged, path, weights_only)
            if not weights_only:
                _load_optimizer(optimizer, checkpoint.get("optimizer"), path)
                if not prefix:
                    self._load_rest(checkpoint, state)
        return state

    def _newest_readable(self) -> dict[str, tuple[str, dict]] | None:
        """prefix -> (path, content) of the newest step all of whose files can be read."""
        steps = [step for step, _ in list_checkpoints(self.folder)]
        for step in reversed(steps):
            paths = {prefix: checkpoint_path(self.folder, step, prefix) for prefix in self.parts}
            try:
                return {prefix: (path, read_checkpoint(path)) for prefix, path in paths.items()}
            except InputError as error:
                logger.warning("%s; falling back to the checkpoint before it", error)
        if steps:
            raise InputError(
                f"none of the {len(steps)} checkpoints in {self.folder} can be read; "
                "move them away to start anew"
            )
        return None

    def _load_rest(self, checkpoint: dict, state: dict) -> None:
        state |= {k: checkpoint[k] for k in state if isinstance(checkpoint.get(k), (int, float))}
        if isinstance(checkpoint.get("sampler"), dict):
            state["samples"] = int(checkpoint["sampler"].get("samples", -1))
        if checkpoint.get("scaler"):
            self.precision.scaler.load_state_dict(checkpoint["scaler"])
        _restore_rng(checkpoint.get("rng"))

    def save(self, state: dict) -> None:
        """Write all parts at state["global_step"], the main one last: its presence means that all
        are there.
        """
        step = state["global_step"]
        self._write({part: checkpoint_path(self.folder, step, part) for part in self.parts}, state)

    def save_best(self, state: dict, score: float) -> None:
        """Keep this state as best.pth if `score` is the smallest so far."""
        if score < state["best"]:
            state["best"] = score
            paths = {prefix: os.path.join(self.folder, prefix + BEST) for prefix in self.parts}
            self._write(paths, state)

    def _write(self, paths: dict[str, str], state: dict) -> None:
        if distributed.is_main():
            for prefix in sorted(paths, key=len, reverse=True):
                save_checkpoint(paths[prefix], self._content(prefix, state))
            logger.info("saved %s", paths[""])
            for prefix in self.parts if self.hp.keep_checkpoints else ():
                for _, path in list_checkpoints(self.folder, prefix)[: -self.hp.keep_checkpoints]:
                    os.remove(path)

    def _content(self, prefix: str, state: dict) -> dict:
        model, optimizer = self.parts[prefix]
        scaler = self.precision.scaler
        return {
            "state_dict": model.state_dict(),
            "optimizer": optimizer.state_dict() if self.hp.save_optimizer_state else None,
            "ema": self.ema.model.state_dict() if self.ema and not prefix else None,
            "scaler": scaler.state_dict() if scaler.is_enabled() else None,
            **{key: value for key, value in state.items() if key != "samples"},
            "sampler": {"samples": state["samples"]},
            "model": describe_model(model),
            "hparams": dict(vars(self.hp)),
            "rng": _rng_state(),
        }


def _load_optimizer(optimizer: Optimizer, saved: dict | None, path: str) -> None:
    if not saved:
        logger.info("%s holds no optimizer state: the optimizer starts afresh", path)
        return
    try:
        optimizer.load_state_dict(saved)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"checkpoint {path}: its optimizer does not fit this model ({error})"
        ) from error


def _rng_state() -> dict:
    """The states of all random number generators, as tensors and plain numbers."""
    name, keys, *rest = np.random.get_state()
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(numbers), gauss],
    }


def _restore_rng(state: object) -> None:
    """Undo of _rng_state, as far as `state` (from a file, perhaps an older one) holds it."""
    if not isinstance(state, dict):
        return
    if isinstance(state.get("torch"), torch.Tensor):
        torch.set_rng_state(state["torch"])
    if state.get("cuda") and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state.get("numpy"):
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    if state.get("python"):
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
