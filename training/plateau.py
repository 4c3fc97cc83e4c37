"""Says once when the expert's validation loss has settled at ln 2, and what to try."""

from __future__ import annotations

import argparse
import math
import shlex

from hparams import HParams

LN2 = math.log(2)  # the loss of an expert that says 0.5 to everything
WIDTH = 0.02  # an expert that begins to learn is further away
CHANCE_AUC = 0.6  # 0.5 = chance, from which 50 windows stray by 0.05
VALIDATIONS = 3  # in a row
# Steps over which they must lie: on the synthetic corpus the released recipe stays for 50 to 450,
# depending on the seed
STEPS = 500
LRS2_LEAVES = (150_000, 200_000)  # steps at which it leaves the plateau on LRS2, batch 64, as said


class PlateauWatch:
    """Follows the validations of an expert's training: one message when it is stuck at ln 2.

    It comes again only where the loss left the plateau and came back, and once more when the
    training has passed the steps after which the released recipe leaves it on LRS2.
    """

    def __init__(self, hp: HParams, args: argparse.Namespace) -> None:
        self.hp, self.args = hp, args
        self._first, self._count = 0, 0
        self._told: set[bool] = set()

    def feed(self, step: int, val_scores: dict[str, float]) -> str | None:
        """The message that is due after the validation at `step`, if any. val_scores: as of
        training/expert_validation.py.
        """
        stuck = abs(val_scores["loss"] - LN2) <= WIDTH
        if not stuck or val_scores.get("auc", 0.5) >= CHANCE_AUC:
            self._count = 0
            self._told.clear()
            return None
        if not self._count:
            self._first = step
        self._count += 1
        late = step > LRS2_LEAVES[1]
        if self._count < VALIDATIONS or step - self._first < STEPS or late in self._told:
            return None
        self._told.add(late)
        return self._message(step, val_scores)

    def _message(self, step: int, val_scores: dict[str, float]) -> str:
        lines = [
            f"step {step}: the validation loss has been ln 2 = {LN2:.2f} since step {self._first}, "
            f"AUC {val_scores.get('auc', 0.5):.2f} (chance: 0.50): the expert hears no difference "
            "between the right sound and a wrong one.",
            self._patience(step),
            "What it may be, the likeliest first, and what tells:",
        ]
        return "\n".join([*lines, *(f"{n}. {cause}" for n, cause in enumerate(self._causes(), 1))])

    def _patience(self, step: int) -> str:
        if self.hp.syncnet_loss != "bce":
            return "The contrastive loss should have left this long before the released one does."
        begin, end = (f"{steps:,}" for steps in LRS2_LEAVES)
        if step > LRS2_LEAVES[1]:
            return f"On LRS2 (batch 64) the released recipe has left it after {end} steps."
        return (
            f"On LRS2 (batch 64) the released recipe leaves it after {begin} to {end} steps, so it "
            "may only need time."
        )

    def _causes(self) -> list[str]:
        hp, args, batch = self.hp, self.args, 4 * self.hp.syncnet_batch_size
        clips = shlex.join([args.data_root, "--filelists", args.filelists])
        clips = f"python preprocess.py --preprocessed_root {clips}"
        expert = "--expert checkpoints/syncnet_v2.model"
        causes = [
            "Sound and picture of the clips are out of sync (any trained expert tells): "
            f"{clips} --doctor {expert}; then {clips} --correct_sync {expert}",
            "The sound is not the face's, or there are too few speakers or too many damaged clips: "
            f"{clips} --doctor",
            f"The learning rate ({hp.syncnet_lr:g}; 1e-4 to 1e-5 are known to work), the batch "
            f"({hp.syncnet_batch_size}) or the set-up: {self._train('--check')}; "
            f"a larger batch: {self._train(hparams=[f'syncnet_batch_size={batch}'])}",
        ]
        if hp.syncnet_loss == "bce":
            folder = args.checkpoint_dir.rstrip("/") + "_contrastive"
            if args.config:  # there can be only one
                other = self._train(folder=folder, hparams=["syncnet_loss=contrastive"])
            else:
                other = self._train("--config", "configs/syncnet_contrastive.yaml", folder=folder)
            causes.append(
                f"Nothing of that: the contrastive loss leaves the plateau sooner: {other}"
            )
        return causes

    def _train(self, *extra: str, folder: str | None = None, hparams: list[str] = ()) -> str:
        """The command of this run, with changes."""
        args = self.args
        command = [
            "python", "color_syncnet_train.py", "--data_root", args.data_root,
            "--filelists", args.filelists, "--checkpoint_dir", folder or args.checkpoint_dir,
        ]  # fmt: skip
        command += ["--config", args.config] if args.config else []
        hparams = [*args.hparams, *hparams]
        command += ["--hparams", *hparams] if hparams else []
        return shlex.join([*command, *extra])
