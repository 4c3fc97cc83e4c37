"""Hyper-parameters: one flat, frozen dataclass with the released names and defaults (paper section
4.1).

Precedence: the defaults below < `--config x.yaml` < `--hparams key=value ...`. A key nobody knows
and a value of the wrong type are errors, never ignored.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
from collections.abc import Container
from dataclasses import dataclass

from errors import InputError, nearest, read_yaml, require_file
from media.files import replacing
from media.lists import read_lines
from models import GENERATORS


@dataclass(frozen=True)
class HParams:
    # Audio
    num_mels: int = 80
    rescale: bool = True  # present in the released set, unused on this path, as is rescaling_max
    rescaling_max: float = 0.9
    n_fft: int = 800
    hop_size: int = 200  # 12.5 ms: 80 mel rows a second
    win_size: int = 800
    sample_rate: int = 16000
    signal_normalization: bool = True
    allow_clipping_in_normalization: bool = True
    symmetric_mels: bool = True
    max_abs_value: float = 4.0
    preemphasize: bool = True
    preemphasis: float = 0.97
    min_level_db: float = -100.0
    ref_level_db: float = 20.0
    fmin: float = 55.0
    fmax: float = 7600.0

    # Video and windows
    img_size: int = 96
    fps: int = 25
    syncnet_T: int = 5  # frames in a window
    syncnet_mel_step_size: int = 16  # mel rows in a window: 0.2 s

    # Model
    model: str = "Wav2Lip"  # the generator, or "crossattn" (models/crossattn.py), to which belong
    audio_encoder: str = "conv1d_lstm"  # or "conv1d_transformer"
    face_encoder: str = "resnet50"  # or "efficientnet_b0"
    face_encoder_weights: str = ""  # begin with ImageNet's: a file, or "download" (torchvision's)
    mask_wt: float = 0.002  # of the mask's mean: what gains less L1 than this is not redrawn
    mask_smooth_wt: float = 0.002  # of the mask's total variation
    width: float = 1.0  # channels of every layer times this, at least 8; 1 = the released models

    # Generator training
    batch_size: int = 16
    initial_learning_rate: float = 1e-4
    nepochs: int = 200_000_000_000_000_000  # stop by hand, or with nsteps
    nsteps: int = 0  # stop after this many steps in all; 0 = never
    num_workers: int = 16
    checkpoint_interval: int = 3000
    eval_interval: int = 3000
    eval_windows: int = 0  # windows in a validation; 0 = one of every clip of the split
    save_optimizer_state: bool = True
    keep_checkpoints: int = 5  # newest ones kept; 0 = all (released)
    seed: int = 0
    warmup_steps: int = 0  # the learning rate rises linearly over these; 0 = released behaviour
    cosine: bool = False  # then falls to 0 at nsteps along a cosine; needs nsteps
    channels_last: bool = False  # memory layout: the same numbers to rounding, faster
    log_interval: int = 10  # steps between lines of metrics.jsonl

    # Against lips that follow the video instead of the sound; off = the paper's run
    reference_dropout: float = 0.0  # share of samples whose reference shows no lower half
    reference_gap: int = 0  # least frames between the target's and the reference's window
    augment: bool = False  # mirror, turn, zoom, colour, pitch: one draw a sample (datasets.Jitter)
    mouth_wt: float = 0.0  # weight of the mouth's own L1 beside the whole picture's

    # Speed and stability: off = the paper's run
    amp: str = ""  # autocast to "bfloat16" or "float16"
    compile: bool = False  # torch.compile the networks
    accumulation: int = 1  # batches whose gradients make one step
    clip_grad: float = 0.0  # largest gradient norm; 0 = no limit
    ema: float = 0.0  # decay of a moving average of the weights, e.g. 0.999; 0 = none
    finetune: bool = False  # --checkpoint_path gives weights only: step 0, a fresh optimizer
    freeze_norm: bool = False  # the generator's batch norms keep the statistics that they came with

    # Lip-sync expert
    syncnet_wt: float = 0.0  # weight of the sync loss at the start
    syncnet_wt_gated: float = 0.01  # once the eval sync loss is below sync_gate
    hq_syncnet_wt_gated: float = 0.03  # the same for hq_wav2lip_train.py
    sync_gate: float = 0.75
    syncnet_wt_ramp: int = 0  # steps over which the weight rises once the gate is open; 0 = at once
    syncnet_batch_size: int = 64
    syncnet_lr: float = 1e-4
    syncnet_eval_interval: int = 10000
    syncnet_checkpoint_interval: int = 10000
    syncnet_loss: str = "bce"  # or "contrastive": over all pairs of a batch, see models/syncnet.py
    contrastive_windows: int = 4  # windows of each clip in a contrastive batch
    contrastive_near: int = 0  # so many of them lie 1 to 3 frames from another: hard negatives
    contrastive_temperature: float = 0.07
    contrastive_bce: float = 1.0  # weight of the released loss beside the contrastive one
    expert_batch_stats: bool = (
        False  # true: the frozen expert runs on batch statistics, as in the released scripts
    )

    # Quality discriminator
    disc_wt: float = 0.07
    disc_initial_learning_rate: float = 1e-4
    disc_beta1: float = 0.5  # Adam's first beta of both networks in hq_wav2lip_train.py

    def save(self, path: str | os.PathLike) -> None:
        """Write every value as YAML; `load_hparams(path)` gives the same set back."""
        import yaml

        with replacing(path) as file:
            yaml.safe_dump(dataclasses.asdict(self), file, sort_keys=False)


hparams = HParams()  # the released name
FIELDS = {field.name: type(field.default) for field in dataclasses.fields(HParams)}
RANGES = {  # smallest allowed values
    **dict.fromkeys(
        ("nsteps", "nepochs", "eval_windows", "warmup_steps", "keep_checkpoints", "num_workers",
         "clip_grad", "ema", "syncnet_wt_ramp", "contrastive_bce", "contrastive_near", "mask_wt",
         "mask_smooth_wt", "seed", "reference_dropout", "reference_gap", "mouth_wt",
         "initial_learning_rate", "syncnet_lr", "disc_initial_learning_rate"), 0
    ),
    **dict.fromkeys(
        ("fps", "batch_size", "syncnet_batch_size", "hop_size", "num_mels", "checkpoint_interval",
         "eval_interval", "syncnet_eval_interval", "syncnet_checkpoint_interval", "log_interval",
         "accumulation"), 1
    ),
    "n_fft": 16,
    "win_size": 16,
    "sample_rate": 8000,
    "contrastive_windows": 2,
    "contrastive_temperature": 1e-3,
}  # fmt: skip
BELOW = {"ema": 1, "reference_dropout": 1}  # what values must stay below
CHOICES = {
    "amp": ("", "bfloat16", "float16"),
    "syncnet_loss": ("bce", "contrastive"),
    "img_size": (96, 192, 288, 384),
    "model": GENERATORS,
}
SHIFTED = re.compile(r"(\S|\S.*\S)\s+([+-]\d{1,4})")  # a line of a filelist


def load_hparams(
    config: str | os.PathLike | None = None,
    overrides: list[str] | None = None,
    options: Container[str] = (),
) -> HParams:
    """HParams from a YAML file and `key=value` strings; InputError on a bad key or type. options:
    keys of the file that are none, see errors.with_config.
    """
    values: dict[str, object] = {}
    if config is not None:
        found = read_yaml(config).items()
        values |= {key: value for key, value in found if key in FIELDS or key not in options}
    for item in overrides or []:
        key, equals, text = item.partition("=")
        if not equals:
            raise InputError(f"--hparams {item}: write key=value")
        values[key.strip()] = _parse(text)
    return HParams(**{key: _checked(key, value) for key, value in values.items()})


# fmt: off
def add_hparams_arguments(parser: argparse.ArgumentParser) -> None:
    """The two options that every script with hyper-parameters takes."""
    parser.hyper_parameters = tuple(FIELDS)  # with_config knows them then
    parser.add_argument("--config", metavar="YAML",
        help="hyper-parameters and options that differ from the defaults")
    parser.add_argument("--hparams", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="hyper-parameters on top of that, e.g. --hparams batch_size=8 img_size=96")


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """What the three training scripts share."""
    add = parser.add_argument
    add("--data_root", required=True, help="root of the preprocessed clips")
    add("--checkpoint_dir", required=True,
        help="where checkpoints go; the same command again continues from the newest")
    add("--checkpoint_path", help="checkpoint to start from while checkpoint_dir holds none")
    add("--filelists", default="filelists", help="folder with train.txt and val.txt")
    add("--log_dir", default="runs", help="logs go to LOG_DIR/EXPERIMENT")
    add("--experiment", help="name of the run; default: the name of checkpoint_dir")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    add("--amp", nargs="?", const="bfloat16", choices=("bfloat16", "float16"),
        help="mixed precision; without a value bfloat16. The same as --hparams amp=...")
    add("--compile", action="store_true", help="torch.compile. The same as --hparams compile=true")
    add("--check", action="store_true",
        help="do not train: overfit one batch, check the data, estimate the hours; 0 = all well")
    add_hparams_arguments(parser)
# fmt: on


def load_training_hparams(args: argparse.Namespace) -> HParams:
    """load_hparams of a training script's arguments, its short cuts included."""
    short = [f"amp={args.amp}"] if args.amp else []
    short += ["compile=true"] if args.compile else []
    return load_hparams(args.config, args.hparams + short, vars(args))


def _parse(text: str) -> object:
    import yaml

    try:
        return yaml.safe_load(text) if text.strip() else ""
    except yaml.YAMLError as error:
        raise InputError(f"--hparams value cannot be read: {text}") from error


def _checked(key: str, value: object) -> object:
    """`value` as the type of the field `key`. An int serves as a float and `1e-4` (a string to
    YAML) as a number.
    """
    if key not in FIELDS:
        raise InputError(
            f"unknown hyper-parameter {key!r}; the nearest is {nearest(key, FIELDS)!r}"
        )
    wanted, made = FIELDS[key], value
    if wanted in (int, float) and type(value) in (int, float, str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if wanted is float:
            made = number if math.isfinite(number) else None
        elif number.is_integer() and type(value) is not int:
            made = int(number)
    if type(made) is not wanted:  # a bool is an int to isinstance
        raise InputError(f"hyper-parameter {key} must be {wanted.__name__}, not {value!r}")
    if key in RANGES and made < RANGES[key]:
        raise InputError(f"hyper-parameter {key} must be at least {RANGES[key]}, not {value}")
    if key in BELOW and made >= BELOW[key]:
        raise InputError(f"hyper-parameter {key} must be below {BELOW[key]}, not {value}")
    if key in CHOICES and made not in CHOICES[key]:
        choices = ", ".join(map(repr, CHOICES[key]))
        raise InputError(f"hyper-parameter {key} must be one of {choices}, not {value!r}")
    return made


def get_image_list(
    data_root: str | os.PathLike, split: str, filelists: str | os.PathLike = "filelists"
) -> list[str]:
    """Folders `<data_root>/<dir>/<video>` of the split's filelist `filelists/<split>.txt`."""
    return [folder for folder, _ in read_split(data_root, split, filelists)]


def read_split(
    data_root: str | os.PathLike, split: str, filelists: str | os.PathLike = "filelists"
) -> list[tuple[str, int]]:
    """(folder, shift) of the clips of a split; see read_entries."""
    path = require_file(os.path.join(filelists, f"{split}.txt"), f"filelist of the split {split!r}")
    entries = read_entries(path, data_root)
    if not entries:
        raise InputError(f"filelist {path} names no clip")
    return [(os.path.join(data_root, name), shift) for name, shift in entries]


def read_entries(
    path: str | os.PathLike, data_root: str | os.PathLike = ""
) -> list[tuple[str, int]]:
    """(name, shift) of a filelist's lines: `dir/video`, or `dir/video +3` where the clip's sound is
    to be delayed by 3 frames (preparation/sync.py writes these). A clip named twice is drawn twice.

    What else follows a space is ignored, as in LRS2's own lists, unless it belongs to the name of a
    folder below data_root. Windows' separators and quotes are understood.
    """
    entries = []
    if os.path.isfile(path) and not os.path.getsize(path):
        return entries  # a split that nothing was kept of
    for line in filter(None, read_lines(path, "filelist")):
        found = SHIFTED.fullmatch(line)
        name, shift = (found[1], int(found[2])) if found else (line, 0)
        name = name.strip("\"'").replace("\\", "/")
        if len(name.split()) > 1 and not os.path.isdir(os.path.join(data_root, name)):
            name = name.split()[0].strip("\"'")
        entries.append((os.path.normpath(name), shift))
    return entries
