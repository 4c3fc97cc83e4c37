import math
import shlex
from types import SimpleNamespace

import pytest

import color_syncnet_train
import preprocess
from hparams import HParams
from training.plateau import LRS2_LEAVES, STEPS, PlateauWatch

STUCK = {"loss": math.log(2) + 0.01, "auc": 0.52}


def watch(config=None, hparams=(), checkpoint_dir="my experts/", **hp):
    args = SimpleNamespace(
        data_root="data/my clips", filelists="lists", checkpoint_dir=checkpoint_dir,
        config=config, hparams=list(hparams),
    )  # fmt: skip
    return PlateauWatch(HParams(**hp), args)


def fed(watched, scores, steps):
    return {step: message for step in steps if (message := watched.feed(step, scores))}


def test_one_message_after_several_validations():
    messages = fed(watch(), STUCK, range(10_000, 150_001, 10_000))
    assert list(messages) == [30_000]
    assert "step 30000" in messages[30_000] and "AUC 0.52" in messages[30_000]


def test_frequent_validations_wait_for_steps():
    assert list(fed(watch(), STUCK, range(10, 2000, 10))) == [10 + STEPS]


@pytest.mark.parametrize(
    "scores",
    [{"loss": 0.66, "auc": 0.52}, {"loss": 0.73, "auc": 0.52}, {"loss": 0.69, "auc": 0.65},
     {"loss": math.nan, "auc": math.nan}],
)  # fmt: skip
def test_no_message_off_the_plateau(scores):
    watched = watch()
    assert not fed(watched, scores, range(10_000, 400_000, 10_000))
    mixed = {}
    for step in range(0, 100_000, 10_000):  # every third validation is off it
        mixed |= fed(watched, STUCK if step % 30_000 else scores, [step])
    assert not mixed


def test_a_loss_that_comes_back_is_told_again():
    watched = watch()
    assert list(fed(watched, STUCK, range(10_000, 50_001, 10_000))) == [30_000]
    assert not fed(watched, {"loss": 0.5, "auc": 0.8}, [60_000])
    assert list(fed(watched, STUCK, range(70_000, 130_001, 10_000))) == [90_000]


def test_patience_ends_with_the_published_steps():
    messages = fed(watch(), STUCK, range(10_000, 400_001, 10_000))
    assert list(messages) == [30_000, LRS2_LEAVES[1] + 10_000]
    early, late = messages.values()
    assert "150,000 to 200,000 steps" in early and "only need time" in early
    assert "only need time" not in late


def commands(message):
    return [
        shlex.split(part.removesuffix(";"))
        for line in message.splitlines()
        for part in line.replace("; ", "\n").replace(": python ", "\npython ")
        .replace("then python", "\npython").splitlines()
        if part.startswith("python ")
    ]  # fmt: skip


@pytest.mark.parametrize("config", [None, "configs/tiny_cpu.yaml"])
@pytest.mark.parametrize("loss", ["bce", "contrastive"])
def test_its_commands_are_the_runs_own_and_can_be_typed(config, loss):
    hparams = ["syncnet_batch_size=32", f"syncnet_loss={loss}"]
    watched = watch(config, hparams, syncnet_batch_size=32, syncnet_loss=loss)
    (message,) = fed(watched, STUCK, range(10_000, 60_000, 10_000)).values()
    parsed = []
    for _, script, *argv in commands(message):
        parser = {"preprocess.py": preprocess, "color_syncnet_train.py": color_syncnet_train}[
            script
        ]
        args = parser.get_args_parser().parse_args(argv)
        root = args.preprocessed_root if script == "preprocess.py" else args.data_root
        assert root == "data/my clips" and args.filelists == "lists"
        parsed.append(args)
    doctor, correct, doctor_alone, check, larger = parsed[:5]
    assert doctor.doctor and doctor.expert and correct.correct_sync and correct.expert
    assert doctor_alone.doctor and not doctor_alone.expert
    assert check.check and check.config == config and check.hparams == hparams
    assert larger.hparams[-1] == "syncnet_batch_size=128"
    if loss == "contrastive":
        assert len(parsed) == 5 and "150,000" not in message
        return
    other = parsed[5]
    assert other.checkpoint_dir == "my experts_contrastive"
    if config:
        assert other.config == config and other.hparams[-1] == "syncnet_loss=contrastive"
    else:
        assert other.config == "configs/syncnet_contrastive.yaml"
