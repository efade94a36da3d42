"""Class-balanced sampling, and steps that fade out."""

import numpy as np
import pytest

from sparse3d.data.augment import AugmentConfig, FadeOut, PointShuffle, RandomFlip
from sparse3d.data.balance import ClassBalanced
from sparse3d.data.kitti import KittiDataset, KittiDatasetConfig
from sparse3d.errors import DataError
from tests.data.kitti_folder import write_folder


@pytest.fixture
def root(tmp_path):
    """Eight frames with cars; pedestrians in the first two; nobody cycles."""
    root = write_folder(tmp_path / "kitti", frames=8)
    for frame in range(2, 8):
        path = root / f"training/label_2/{frame:06d}.txt"
        path.write_text(
            "".join(line for line in path.read_text().splitlines(True) if "Pedestrian" not in line)
        )
    return root


def dataset(root, augment=None, epochs=None):
    return KittiDataset(KittiDatasetConfig(root=str(root)), "train", augment, epochs)


def test_each_class_gets_equally_many_frames_and_each_frame_of_a_class_its_turn(root, caplog):
    balanced = ClassBalanced(dataset(root))
    assert "has Cyclist" in caplog.text
    # (8 + 2) / 2 = 5 frames for cars and 5 for pedestrians.
    assert balanced.per_class == 5 and len(balanced) == 10
    seen = np.zeros(8)
    for epoch in range(8):
        draws = balanced.draws(epoch)
        cars, pedestrians = draws[:5], draws[5:]
        assert len(set(cars.tolist())) == 5, "no car frame twice while others wait"
        assert sorted(np.bincount(pedestrians, minlength=2).tolist()) == [2, 3]
        seen[cars] += 1
    assert seen.min() > 0
    assert not np.array_equal(balanced.draws(0), balanced.draws(1))
    np.testing.assert_array_equal(balanced.draws(3), ClassBalanced(dataset(root)).draws(3))
    assert not np.array_equal(balanced.draws(3), ClassBalanced(dataset(root), seed=1).draws(3))


def test_two_draws_of_a_frame_are_augmented_differently(root):
    balanced = ClassBalanced(dataset(root, AugmentConfig((PointShuffle(),))))
    draws = balanced.draws(0)[5:]
    twice = 5 + np.flatnonzero(draws == draws[0])[:2]
    one, other = (balanced[(0, int(i))] for i in twice)
    assert one.frame_id == other.frame_id and not np.array_equal(one.points, other.points)
    np.testing.assert_array_equal(balanced[(0, int(twice[0]))].points, one.points)


def test_without_any_object_there_is_nothing_to_balance(root):
    for path in (root / "training/label_2").iterdir():
        path.write_text("")
    with pytest.raises(DataError, match="no frame of 'train' has an object"):
        ClassBalanced(dataset(root))


def test_steps_fade_out_in_the_last_epochs(root):
    flip, shuffle = RandomFlip(probability=1.0), PointShuffle()
    augment = AugmentConfig((flip, shuffle), FadeOut(epochs=2, kinds=("flip",)))
    assert [augment.steps_in(epoch, 5) for epoch in range(5)] == [(flip, shuffle)] * 3 + [(shuffle,)] * 2
    assert augment.steps_in(99, None) == (flip, shuffle), "the length of the training is not known"
    assert AugmentConfig((flip,)).steps_in(4, 5) == (flip,)
    data, plain = dataset(root, augment, epochs=5), dataset(root)
    assert np.array_equal(data[(3, 0)].boxes, plain[0].boxes)
    assert not np.array_equal(data[(2, 0)].boxes, plain[0].boxes)


def test_what_cannot_fade_out_is_named():
    with pytest.raises(ValueError, match=r"kinds \['paste'\] are no steps; there are \['gt_sampling'"):
        FadeOut(kinds=("paste",))
    with pytest.raises(ValueError, match="epochs must be at least 0"):
        FadeOut(epochs=-1)
