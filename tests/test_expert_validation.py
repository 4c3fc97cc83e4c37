import numpy as np
import pytest
import torch
from test_datasets import frame_numbers, make_clip, make_root
from torch.nn import functional as F

from datasets import SyncNetDataset
from evaluation.expert import COLUMNS, get_args_parser, main, shown
from experts.offset import REPORTED_SHIFTS
from hparams import HParams
from models import create_model
from models.syncnet import cosine_loss, sync_accuracy
from training.expert_validation import (
    SHIFTS,
    ExpertValidationDataset,
    PairCosines,
    best_shift,
    join,
    pair_cosines,
    roc_auc,
    summarise,
    validate_expert,
)
from training.setup import to_device, validation_batches

HP = HParams(num_workers=0, eval_windows=14)
CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path):
    make_clip(tmp_path / "data/a/00003", 18, 60)  # short: many shifted sounds do not exist
    root = make_root(tmp_path)
    with open(root / "train.txt", "a") as file:
        file.write("a/00003\n")
    return root


def datasets(root, kinds=(SyncNetDataset, ExpertValidationDataset)):
    return [kind(str(root / "data"), "train", HP, str(root)) for kind in kinds]


def expert():
    torch.manual_seed(3)
    return create_model("SyncNet_color", width=0.125).eval()


def test_samples_are_the_released_ones_and_the_same_face_with_other_sounds(root):
    released, data = datasets(root)
    labels = set()
    for key in ((0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (5, 3), (6, 0)):
        one, two = released[key], data[key]
        assert torch.equal(one["window"], two["window"]) and torch.equal(one["y"], two["y"])
        in_sync = bool(two["y"])
        labels.add(in_sync)
        assert torch.equal(one["mel"], two["mels"][0 if in_sync else -1])
        assert two["exists"][-1] != in_sync and (two["exists"][0] or not in_sync)
        face, rows = (
            frame_numbers(two["window"])[0],
            len(np.load(f"{data.clips[key[1]].folder}/mel.npy")),
        )
        for shift, mel, exists in zip(SHIFTS, two["mels"], two["exists"], strict=False):
            first = int(80 * (face + shift) / 25)
            assert exists == (face + shift >= 0 and first + 16 <= rows)
            assert mel[0, 0, 0] == (first if exists else 0)
    assert labels == {True, False}
    assert sorted(abs(SHIFTS)) == sorted([0, *REPORTED_SHIFTS, *REPORTED_SHIFTS])


def test_loss_and_accuracy_are_those_of_the_released_validation(root):
    released, data = datasets(root)
    model = expert()
    scores = validate_expert(model, data, HP, 4, CPU)
    losses, right = [], []
    with torch.no_grad():
        for batch in validation_batches(released, 1, HP):
            batch = to_device(batch, CPU)
            audio, face = model(batch["mel"], batch["x"])
            losses.append(float(cosine_loss(audio, face, batch["y"])))
            right.append(float(sync_accuracy(audio, face, batch["y"])))
    assert len(losses) == 14
    assert scores["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert scores["accuracy"] == pytest.approx(np.mean(right))


def test_every_pair_is_the_experts_own(root):
    """Against one forward pass for each pair."""
    (data,) = datasets(root, [ExpertValidationDataset])
    model = expert()
    found = pair_cosines(model, validation_batches(data, 5, HP), CPU)
    assert found.cosines.shape == found.exists.shape == (14, len(SHIFTS) + 1)
    for number in range(14):
        sample = data[divmod(number, len(data))]
        window = to_device({"window": sample["window"][None]}, CPU)["x"]
        assert found.y[number] == sample["y"]
        assert found.exists[number].tolist() == sample["exists"].tolist()
        for place in np.flatnonzero(found.exists[number]):
            with torch.no_grad():
                audio, face = model(sample["mels"][place][None], window)
            expected = F.cosine_similarity(audio, face).item()
            assert found.cosines[number, place] == pytest.approx(expected, abs=1e-5)


def test_shares_of_processes_make_the_same_scores(root):
    (data,) = datasets(root, [ExpertValidationDataset])
    model = expert()
    batches = list(validation_batches(data, 1, HP))
    whole = summarise([pair_cosines(model, batches, CPU)])
    shares = [pair_cosines(model, batches[rank::3], CPU) for rank in range(3)]
    nothing = pair_cosines(model, [], CPU)  # of a process that is one too many
    assert summarise([*shares, nothing]) == pytest.approx(whole, rel=1e-5)


def test_validation_leaves_the_mode_of_the_expert(root):
    (data,) = datasets(root, [ExpertValidationDataset])
    model = expert().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    validate_expert(model, data, HP, 4, CPU)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def made(windows, cosine_of):
    """PairCosines with cosine_of(shift) everywhere; half of the windows in sync, the released wrong
    sound being far away.
    """
    cosines = np.tile([cosine_of(shift) for shift in SHIFTS] + [cosine_of(99)], (windows, 1))
    exists = np.ones_like(cosines, dtype=bool)
    y = (np.arange(windows) % 2).astype(np.float32)
    exists[y == 1, -1] = False
    return PairCosines(y, cosines.astype(np.float32), exists)


def test_scores_closed_form():
    scores = summarise([made(6, lambda shift: 0.8 if abs(shift) <= 1 else 0.25)])
    assert scores["loss"] == pytest.approx(-(np.log(0.8) + np.log(0.75)) / 2, rel=1e-5)
    assert scores["accuracy"] == scores["auc"] == 1
    assert scores["cos_pos"] == pytest.approx(0.8) and scores["cos_neg"] == pytest.approx(0.25)
    assert scores["accuracy_shift_1"] == 0.5  # takes the neighbour for the right one
    assert [scores[f"accuracy_shift_{shift}"] for shift in (2, 3, 5, 10)] == [1, 1, 1, 1]
    same = summarise([made(6, lambda shift: 0.9)])
    assert same["auc"] == same["accuracy"] == 0.5


def test_pairs_that_do_not_exist_do_not_count():
    found = made(4, lambda shift: 0.9 if shift in (0, 10) else 0.1)
    found.exists[:, list(SHIFTS).index(10)] = False
    assert summarise([found])["auc"] == 1
    found.exists[:, 1:-1] = False
    scores = summarise([found])
    assert scores.keys() == {"loss", "accuracy"}


def test_best_shift_tells_clips_that_are_out_of_sync():
    assert best_shift(made(5, lambda shift: 0.9 - 0.05 * abs(shift))) == (0, 1.0)
    assert best_shift(made(5, lambda shift: 0.9 - 0.05 * abs(shift - 5))) == (5, 1.0)
    assert best_shift(made(5, lambda shift: 0.9 - 0.05 * abs(shift + 3))) == (-3, 1.0)


def test_not_a_number_shows():
    found = made(4, lambda shift: np.nan)
    assert np.isnan(summarise([found])["loss"])
    with_one = join([made(4, lambda shift: 0.7), found])
    assert np.isnan(summarise([with_one])["loss"])


def test_accuracy_by_context(root, tmp_path, capsys):
    """5 of 5 frames is a validation; fewer are the middle ones, repeated outwards."""
    numbers = torch.arange(5)[None, :, None]
    assert shown(numbers, 3).flatten().tolist() == [1, 1, 2, 3, 3]
    assert shown(numbers, 1).flatten().tolist() == [2] * 5
    assert torch.equal(shown(numbers, 5), numbers)
    model, path = expert(), tmp_path / "expert.pth"
    described = {"name": "SyncNet_color", "width": 0.125}
    torch.save({"state_dict": model.state_dict(), "model": described}, path)
    arguments = ["--expert", path, "--data_root", root / "data", "--filelists", root]
    arguments += ["--split", "train", "--windows", 14, "--num_workers", 0, "--device", "cpu"]
    main(get_args_parser().parse_args([str(word) for word in arguments]))
    _, head, *rows = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert [row[0] for row in rows] == ["5", "3", "1"] and head[:4] == ["frames", *COLUMNS[:3]]
    (data,) = datasets(root, [ExpertValidationDataset])
    scores = validate_expert(model, data, HP, 4, CPU)
    assert [float(cell) for cell in rows[0][1:]] == pytest.approx(
        [scores[name] for name in COLUMNS], abs=6e-4
    )
    assert rows[1][1:] != rows[0][1:]


def test_roc_auc_closed_form():
    assert roc_auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert roc_auc(np.array([0.0]), np.array([1.0, 2.0])) == 0
    assert roc_auc(np.array([1.0, 1.0]), np.array([1.0, 1.0, 1.0])) == 0.5
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(0.5, 1, 40).round(1), rng.normal(0, 1, 70).round(1)
    pairs = positive[:, None] - negative
    assert roc_auc(positive, negative) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
