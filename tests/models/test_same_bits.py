"""Gradients of whole networks repeat bit for bit with several threads, at sizes where threads are used."""

import pytest
import torch

from sparse3d.frames import DetectionBatch, SegmentationBatch, SegmentationFrame
from sparse3d.models.dsvt import DSVT
from sparse3d.models.minkunet import MinkUNetConfig
from sparse3d.models.segmenters import build_segmenter
from sparse3d.models.voxel_rcnn import VoxelRCNN
from tests.models.test_dsvt import PILLARS
from tests.models.test_voxel_rcnn import CONFIG
from tests.models.two_objects import frame_of, total

BIG = DetectionBatch.collate([frame_of(points=4000, ground=8000), frame_of(points=4000, seed=1)])


def labelled_points() -> SegmentationBatch:
    points = frame_of(points=4000, ground=8000).points
    frame = SegmentationFrame.unlabelled("a", points)
    frame.labels[:] = (points[:, 0] > 8).astype(int) + 2 * (points[:, 1] > 0)
    return SegmentationBatch.collate([frame])


MINK = MinkUNetConfig(classes=("a", "b", "c", "d"), voxel_size=0.4, channels=(16,) * 8, layers=(1,) * 8)
NETWORKS = {
    "dsvt": lambda: (DSVT(PILLARS), BIG),
    "voxel_rcnn": lambda: (VoxelRCNN(CONFIG), BIG),
    "minkunet": lambda: (build_segmenter(MINK), labelled_points()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_repeat_with_two_threads(name):
    before, runs = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        for _ in range(4):
            torch.manual_seed(0)
            model, batch = NETWORKS[name]()
            loss = total(model.loss(batch))
            loss.backward()
            gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            runs.append(gradients | {"loss": loss.detach()})
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        wrong = [n for n, value in run.items() if not torch.equal(value, runs[0][n])]
        assert not wrong, wrong[:5]
