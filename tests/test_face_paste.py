"""lipsync/paste.py: what changes in the frame, and how softly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lipsync.options import MASKS, PASTES
from lipsync.paste import ColorMatch, paste_face


def test_hard_paste_replaces_exactly_the_box():
    frame, face = np.full((50, 60, 3), 7, np.uint8), np.full((96, 96, 3), 200, np.uint8)
    paste_face(frame, face, (10, 20, 40, 45), "hard")
    assert (frame[20:45, 10:40] == 200).all()
    frame[20:45, 10:40] = 7
    assert (frame == 7).all()


def test_feathered_paste_is_soft_at_the_edge_and_full_inside():
    frame, face = np.full((120, 120, 3), 10, np.uint8), np.full((96, 96, 3), 210, np.uint8)
    paste_face(frame, face, (10, 10, 110, 110), "feather")
    assert (frame[:10] == 10).all() and (frame[:, 110:] == 10).all()
    assert (frame[30:90, 30:90] == 210).all()
    row = frame[60, 10:30, 0].astype(int)
    assert (np.diff(row) >= 0).all() and row[0] < 20  # rises from the frame's own value


@pytest.mark.parametrize(("paste", "mask"), list(itertools.product(PASTES, MASKS)))
@pytest.mark.parametrize("box", [(20, 30, 90, 110), (0, 0, 120, 120), (0, 60, 30, 120)])
def test_nothing_outside_the_region_changes(paste, mask, box):
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (120, 120, 3), np.uint8)
    before = frame.copy()
    paste_face(frame, np.full((96, 96, 3), 128, np.uint8), box, paste, mask)
    x1, y1, x2, y2 = box
    inside = np.zeros((120, 120), bool)
    inside[y1 + (y2 - y1) // 2 if mask == "lower" else y1 : y2, x1:x2] = True
    assert (frame[~inside] == before[~inside]).all()
    assert (frame[inside] != before[inside]).any()


def test_poisson_takes_the_frames_colours_and_the_faces_pattern():
    frame = np.full((120, 120, 3), 60, np.uint8)
    face = np.full((96, 96, 3), 180, np.uint8)
    face[40:56, 40:56] = 220  # 40 levels above its surroundings
    paste_face(frame, face, (10, 10, 110, 110), "poisson")
    assert abs(int(frame[20, 20, 0]) - 60) < 6  # no seam: the face's own level is forgotten
    assert 25 < int(frame[60, 60, 0]) - int(frame[20, 20, 0]) < 55


@pytest.mark.parametrize("box", [(5, 5, 7, 7), (0, 0, 3, 2), (118, 118, 120, 120)])
@pytest.mark.parametrize("paste", PASTES)
@pytest.mark.parametrize("mask", MASKS)
def test_tiny_boxes_do_no_harm(box, paste, mask):
    frame = np.full((120, 120, 3), 60, np.uint8)
    paste_face(frame, np.full((96, 96, 3), 180, np.uint8), box, paste, mask)
    x1, y1, x2, y2 = box
    assert frame[y1:y2, x1:x2].min() >= 60 and frame.max() <= 180  # between the two
    frame[y1:y2, x1:x2] = 60
    assert (frame == 60).all()


def test_a_models_own_mask_decides():
    frame, face = np.full((50, 50, 3), 10, np.uint8), np.full((96, 96, 3), 210, np.uint8)
    mask = np.zeros((96, 96, 1), np.uint8)
    mask[48:] = 51  # a fifth
    for paste, area in itertools.product(PASTES, MASKS):
        pasted = frame.copy()
        paste_face(pasted, np.dstack((face, mask)), (0, 0, 50, 50), paste, area)
        assert (pasted[:20] == 10).all() and (pasted[30:] == 50).all()


def test_a_tinted_face_gets_the_colours_around_the_mouth():
    rng = np.random.default_rng(0)
    texture = rng.integers(-12, 13, (96, 96, 1))
    skin = np.clip(np.array([110, 140, 190]) + texture, 0, 255).astype(np.uint8)
    tinted = np.clip(0.9 * skin + np.array([25, 0, -20]), 0, 255).astype(np.uint8)
    old, tinted = skin.copy(), tinted
    old[65:81, 38:58] = 0  # an open mouth, which is none of the skin's colours
    matched = ColorMatch().match(tinted, old).astype(int)
    assert np.abs(tinted.astype(int) - skin).mean() > 8
    assert np.abs(matched - skin).mean() < 2
    masked = ColorMatch().match(np.dstack((tinted, tinted[..., 0])), old)
    assert (masked[..., :3] == matched).all() and (masked[..., 3] == tinted[..., 0]).all()


def test_matched_colours_do_not_flicker():
    skin, colour = np.full((64, 64, 3), 120, np.uint8), ColorMatch()
    first = colour.match(skin, skin)
    jumped = colour.match(skin, skin + np.uint8(40)).astype(int)
    assert np.abs(first.astype(int) - skin).max() <= 1
    assert 2 < (jumped - skin).mean() < 10  # a part of it, more with each frame
    for _ in range(40):
        jumped = colour.match(skin, skin + np.uint8(40))
    assert jumped.mean() == pytest.approx(160, abs=2)
