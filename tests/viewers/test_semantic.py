"""Pictures of labelled scans."""

import numpy as np
import pytest

from sparse3d.viewers.semantic import SEMANTIC_COLORS, UNLABELLED, draw_semantic

NAMES = ("car", "road")


def test_points_stand_where_they_are_in_the_colour_of_their_class():
    points = np.array([[10.0, 0, 0], [0, 20, 0], [-30, 0, 0], [0, 20, 1], [400, 0, 0], [np.nan, 0, 0]])
    labels = np.array([0, 1, -1, 0, 1, 1])
    picture = np.asarray(draw_semantic(points, labels, NAMES, reach=50, pixels_per_metre=2))
    assert picture.shape == (200, 200, 3)
    assert tuple(picture[80, 100]) == SEMANTIC_COLORS["car"]  # forward is up
    assert tuple(picture[100, 60]) == SEMANTIC_COLORS["car"]  # left is left, the higher point on top
    assert tuple(picture[160, 100]) == UNLABELLED


def test_every_class_has_a_colour_of_its_own_and_empty_clouds_are_fine():
    assert len(set(SEMANTIC_COLORS.values())) == 19
    assert draw_semantic(np.zeros((0, 4)), np.zeros(0), NAMES, title="nothing").size == (1000, 1000)
    with pytest.raises(ValueError, match="labels for 2 points"):
        draw_semantic(np.zeros((2, 4)), np.zeros(3), NAMES)
