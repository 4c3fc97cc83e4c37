"""follows, leak and landmark distances in closed form."""

import numpy as np
import pytest

from face_detection.landmarks import (
    CHIN,
    LIPS,
    TOP,
    landmark_distance,
    lip_scores,
    partial_correlation,
)

RNG = np.random.default_rng(0)
SOUND, VIDEO, NOISE = RNG.normal(size=(3, 5000)) * 0.02


def test_lips_of_the_sound_follow_and_do_not_leak():
    scores = lip_scores(SOUND, SOUND, VIDEO)
    assert scores["follows"] == pytest.approx(1) and scores["amplitude"] == pytest.approx(1)
    assert abs(scores["leak"]) < 0.05


def test_lips_of_the_video_leak_and_do_not_follow():
    scores = lip_scores(VIDEO, SOUND, VIDEO)
    assert scores["leak"] == pytest.approx(1)
    assert scores["follows"] == 0  # nothing of them is left


def test_what_sound_and_video_share_counts_for_neither():
    shared = NOISE * 3  # e.g. both pause at once
    made, sound, video = shared + VIDEO, shared + SOUND, shared + VIDEO
    assert np.corrcoef(made, sound)[0, 1] > 0.85  # a plain correlation is fooled
    assert abs(lip_scores(made + RNG.normal(size=5000) * 1e-3, sound, video)["follows"]) < 0.05


@pytest.mark.parametrize("weight", [0.3, 1.0, 2.0])
def test_partial_correlation_has_its_closed_form(weight):
    """x = y + w z of independent unit series, z taken out: corr(y, y) = 1; with noise 1/sqrt(2)."""
    y, z, noise = RNG.normal(size=(3, 200000))
    assert partial_correlation(y + weight * z, y, z) == pytest.approx(1, abs=1e-3)
    assert partial_correlation(y + noise + weight * z, y, z) == pytest.approx(0.5**0.5, abs=0.01)


def test_still_lips_have_no_scores():
    scores = lip_scores(np.full(100, 0.03), SOUND[:100], VIDEO[:100])
    assert scores == {"follows": 0, "leak": 0, "amplitude": 0}


def test_series_are_cut_to_the_shortest():
    assert lip_scores(SOUND[:50], SOUND, VIDEO[:80]) == lip_scores(
        SOUND[:50], SOUND[:50], VIDEO[:50]
    )


def test_landmark_distance_is_in_percent_of_the_face_and_of_the_lips_shape():
    truth = np.zeros((3, 468, 2))
    truth[:, CHIN, 1] = 200.0
    truth[:, TOP, 1] = 0.0
    assert landmark_distance(truth + [6.0, 8.0], truth) == pytest.approx(5)  # 10 of 200 pixels
    lips = list(LIPS)
    assert landmark_distance(truth + [6.0, 8.0], truth, lips) == pytest.approx(0, abs=1e-9)
    made = truth.copy()
    made[:, lips[::2], 1] += 4.0  # half of them up, half down by 2 of 200 about their centre
    assert landmark_distance(made, truth, lips) == pytest.approx(1)
