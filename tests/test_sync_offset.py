import cv2
import numpy as np
import pytest
import torch
from test_sync import EXPERT, HP, write_clip

from errors import InputError
from experts.offset import clip_offset, offset_of


@pytest.mark.parametrize("late", [7, -5, 0, 15, -15])
def test_a_shift_is_found_to_the_frame(tmp_path, late):
    write_clip(tmp_path / "c", shift=late)
    found = clip_offset(EXPERT, tmp_path / "c", HP)
    assert found.offset == -late  # positive: the sound is early
    assert found.searched == 15 and len(found.curve) == 31
    assert found.curve[15 + late] == found.distance == found.curve.min()
    assert found.confidence == pytest.approx(np.median(found.curve) - found.distance)
    assert found.confidence > 0.5


def test_only_pairs_that_exist_are_averaged(tmp_path):
    """The curve against a plain double loop over windows, on a clip with a gap: sound from beyond
    the longest run of crops is used, as far as the clip goes.
    """
    folder = tmp_path / "c"
    write_clip(folder, 60, shift=3, missing=[4, 40])
    mel = np.load(folder / "mel.npy")
    starts, rows, model = range(5, 36), len(mel), EXPERT.model  # the run is frames 5..39
    faces = torch.stack([
        torch.from_numpy(np.stack([
            cv2.resize(cv2.imread(f"{folder}/{frame}.jpg"), (96, 96))[48:]
            for frame in range(start, start + 5)
        ])).permute(0, 3, 1, 2).flatten(0, 1)
        for start in starts
    ]).float() / 255  # fmt: skip
    face = model.embed_face(faces)
    expected = []
    for shift in range(-15, 16):
        pairs = []
        for number, start in enumerate(starts):
            first = int(80 * (start + shift) / 25)
            if start + shift < 0 or first + 16 > rows:
                continue
            window = torch.from_numpy(mel[first : first + 16].T.copy())[None, None]
            sound = model.embed_audio(window)[0]
            pairs.append(float((face[number] - sound).norm()))
        assert len(pairs) >= 16
        expected.append(np.mean(pairs))
    found = clip_offset(EXPERT, folder, HP)
    np.testing.assert_allclose(found.curve, expected, atol=1e-4)
    assert found.offset == -3


def test_short_clips_are_searched_less_far_or_refused(tmp_path):
    write_clip(tmp_path / "some", 24, shift=4)
    found = clip_offset(EXPERT, tmp_path / "some", HP)
    assert (found.offset, found.searched) == (-4, 10)  # 20 windows: half of them still meet sound
    write_clip(tmp_path / "gaps", 30, missing=[0, 12, 24])  # runs of 11 frames, 7 windows
    with pytest.raises(InputError, match="gaps: too short"):
        clip_offset(EXPERT, tmp_path / "gaps", HP)
    write_clip(tmp_path / "few", 15)
    with pytest.raises(InputError, match="few: 15 face crops or fewer"):
        clip_offset(EXPERT, tmp_path / "few", HP)


def test_damaged_expert_is_named():
    with pytest.raises(InputError, match="not numbers"):
        offset_of(np.array([1.0, np.nan, 2.0]))
