"""Labelled scans: label maps, splits, what is refused, and that augmentation depends on nothing but its
seed."""

import numpy as np
import pytest
import yaml

from sparse3d.config import load
from sparse3d.data import segmentation_augment as augment
from sparse3d.data.loader import make_loader
from sparse3d.data.minidrive import MinidriveConfig, write_minidrive
from sparse3d.data.minidrive.config import LidarConfig
from sparse3d.data.minidrive.primitives import Semantic
from sparse3d.data.segmentation import LabelledKittiConfig, SegmentationDataset, SemanticKittiConfig
from sparse3d.data.semantic_classes import (
    SEMANTICKITTI_CLASSES,
    SEMANTICKITTI_IDS,
    THINGS,
    UNASKED_IDS,
    LabelMap,
)
from sparse3d.errors import ConfigError, DataError
from sparse3d.frames import IGNORE, SegmentationBatch
from tests.data.semantic_folder import write_folder, write_scan

TINY = SemanticKittiConfig(classes=("car", "person", "road"), train=("00",), val=("08",))


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "semantickitti")


def config(root, **changes) -> SemanticKittiConfig:
    return SemanticKittiConfig(**({"root": str(root), "train": ("00",)} | changes))


def test_labels_of_the_19_classes_and_back():
    label_map = LabelMap(SEMANTICKITTI_CLASSES)
    raw = np.array([10, 252, 60, 40, 0, 1, 52, 99, 81, 257])
    labels = label_map.to_labels(raw)
    names = [None if label == IGNORE else SEMANTICKITTI_CLASSES[label] for label in labels]
    assert names == ["car", "car", "road", "road", None, None, None, None, "traffic-sign", "other-vehicle"]
    assert label_map.to_raw(labels).tolist() == [10, 10, 40, 40, 0, 0, 0, 0, 81, 20]


def test_ids_are_those_of_the_benchmark(real_data):
    """The configuration that comes with the data, entry by entry."""
    path = real_data / "semantickitti" / "semantic-kitti.yaml"
    if not path.is_file():
        pytest.skip("no SemanticKITTI there")
    theirs = yaml.safe_load(path.read_text())
    label_map = LabelMap(SEMANTICKITTI_CLASSES)
    ids = np.array(list(theirs["learning_map"]))
    expected = np.array(list(theirs["learning_map"].values())) - 1  # 0 is ignored there
    np.testing.assert_array_equal(label_map.to_labels(ids), expected)
    inverse = [theirs["learning_map_inv"][k + 1] for k in range(19)]
    assert label_map.to_raw(np.arange(19)).tolist() == inverse
    assert [theirs["labels"][i] for i in inverse] == list(SEMANTICKITTI_CLASSES)


def test_every_id_has_one_meaning():
    ids = [i for group in SEMANTICKITTI_IDS.values() for i in group] + list(UNASKED_IDS)
    assert len(ids) == len(set(ids)) == 34
    assert len(SEMANTICKITTI_CLASSES) == 19 and len(THINGS) == 8 and "road" not in THINGS


def test_a_choice_of_classes_leaves_the_others_out():
    label_map = LabelMap(("road", "car"))
    assert label_map.to_labels(np.array([10, 40, 30, 0])).tolist() == [1, 0, IGNORE, IGNORE]
    for classes in ((), ("car", "car"), ("car", "cra")):
        with pytest.raises(ConfigError, match="expected each once"):
            LabelMap(classes)
    with pytest.raises(ValueError, match="label 1 has the class id 77"):
        label_map.to_labels(np.array([10, 77]))


def test_scans_come_with_their_labels(root):
    data = SegmentationDataset(config(root), "train")
    assert data.frame_ids == ("00/000000", "00/000001", "00/000002")
    frame = data[1]
    assert frame.points.shape == (200, 4) and frame.labels.shape == (200,)
    assert set(np.unique(frame.labels)) == {IGNORE, *(SEMANTICKITTI_CLASSES.index(n) for n in
                                            ("car", "person", "road", "vegetation"))}  # fmt: skip
    assert (frame.instances[frame.labels == SEMANTICKITTI_CLASSES.index("road")] == 0).all()
    with pytest.raises(IndexError):
        data[3]


def test_points_that_are_not_finite_go_with_their_labels(root):
    path = root / "sequences/00/velodyne/000000.bin"
    points = np.fromfile(path, np.float32).reshape(-1, 4)
    whole = SegmentationDataset(config(root), "train")[0]
    points[[3, 50]] = np.nan
    points.tofile(path)
    frame = SegmentationDataset(config(root), "train")[0]
    np.testing.assert_array_equal(frame.labels, np.delete(whole.labels, [3, 50]))


def test_test_sequences_need_no_labels(root):
    write_scan(root, "11", 0)
    (root / "sequences/11/labels/000000.label").unlink()
    frame = SegmentationDataset(config(root, test=("11",)), "test")[0]
    assert (frame.labels == IGNORE).all()


def test_what_is_missing_is_named(root):
    with pytest.raises(DataError, match=r"sequences.01: no velodyne folder .*there are: 00, 08"):
        SegmentationDataset(config(root, train=("00", "01")), "train")
    with pytest.raises(DataError, match="no such split 'vla'"):
        SegmentationDataset(config(root), "vla")
    with pytest.raises(DataError, match="no such folder"):
        SegmentationDataset(config(root / "x"), "train")
    (root / "sequences/08/labels/000002.label").unlink()
    with pytest.raises(DataError, match="1 of 3 scans have no .label file, the first is 000002"):
        SegmentationDataset(config(root), "val")


def test_broken_files_are_named_when_they_are_read(root):
    label = root / "sequences/00/labels/000000.label"
    label.write_bytes(label.read_bytes()[:-4])
    scan = root / "sequences/00/velodyne/000001.bin"
    scan.write_bytes(scan.read_bytes()[:-5])
    (root / "sequences/00/labels/000002.label").write_bytes(np.full(200, 77, "<u4").tobytes())
    data = SegmentationDataset(config(root), "train")
    with pytest.raises(DataError, match=r"000000.label: 199 labels for a scan of 200 points"):
        data[0]
    with pytest.raises(DataError, match=r"000001.bin: .* not whole points"):
        data[1]
    with pytest.raises(DataError, match=r"000002.label: label 0 has the class id 77"):
        data[2]


def test_minidrive_writes_labels_for_every_point(tmp_path):
    tiny = MinidriveConfig(lidar=LidarConfig(beams=8, columns=128))
    write_minidrive(tmp_path / "mini", 3, 0, tiny, labels=True)
    data = SegmentationDataset(LabelledKittiConfig(root=str(tmp_path / "mini")), "train")
    seen = {SEMANTICKITTI_CLASSES[k] for frame in map(data.frame, range(len(data)))
            for k in np.unique(frame.labels) if k != IGNORE}  # fmt: skip
    assert {"car", "road", "building"} <= seen
    LabelMap(SEMANTICKITTI_CLASSES).to_labels(np.array(list(Semantic)))  # minidrive's ids are all known
    (tmp_path / "mini/training/labels/000000.label").unlink()
    with pytest.raises(DataError, match="data make minidrive --labels"):
        SegmentationDataset(LabelledKittiConfig(root=str(tmp_path / "mini")), "train")


STEPS = augment.SegmentationAugmentConfig(
    steps=(
        augment.ScanRotation(),
        augment.PointDropout(),
        augment.LaserMix(),
        augment.PolarMix(),
        augment.Mix3D(probability=0.5),
        augment.PointJitter(),
    )
)


def test_augmentation_follows_from_seed_epoch_and_index_alone(root):
    one, other = (SegmentationDataset(config(root), "train", STEPS) for _ in range(2))
    other[(5, 0)], other[(0, 2)]  # what was asked for before must not matter
    for key in ((0, 0), (0, 1), (3, 1)):
        np.testing.assert_array_equal(one[key].points, other[key].points)
        np.testing.assert_array_equal(one[key].labels, other[key].labels)
    assert len(one[(0, 0)].points) != len(one[(1, 0)].points)
    reseeded = SegmentationDataset(config(root, seed=1), "train", STEPS)
    assert len(reseeded[(0, 0)].points) != len(one[(0, 0)].points)


def test_loaders_give_batches(root):
    data = SegmentationDataset(config(root), "train", STEPS)
    (first, second) = make_loader(data, 2)
    assert isinstance(first, SegmentationBatch) and first.frame_ids == ("00/000000", "00/000001")
    assert (first.batch_size, second.batch_size) == (2, 1)
    np.testing.assert_array_equal(first.split(first.labels)[1].numpy(), data[1].labels)


def test_a_broken_file_comes_through_the_loader_as_what_it_is(root):
    path = root / "sequences/00/labels/000001.label"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="199 labels for a scan of 200 points"):
        list(make_loader(SegmentationDataset(config(root), "train"), 2))


def test_configs_name_sequences_as_text(tmp_path):
    (tmp_path / "c.yaml").write_text("train: [00, 07]\nval: ['08']\n")
    assert load(SemanticKittiConfig, tmp_path / "c.yaml").train == ("00", "07")
