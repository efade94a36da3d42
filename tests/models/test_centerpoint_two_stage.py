"""CenterPoint's second stage: laws for any weights, its published size, and that it refines."""

import math
from dataclasses import fields, replace

import pytest
import torch

from sparse3d.config import load
from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.center_decode import CenterDecodeConfig
from sparse3d.models.centerpoint import CenterPoint
from sparse3d.models.centerpoint_two_stage import CenterPointTwoStage, CenterPointTwoStageConfig
from sparse3d.models.detectors import build_detector
from sparse3d.models.roi_head import RoiHeadConfig
from sparse3d.models.roi_sampling import RoiSamplingConfig
from sparse3d.models.rois import Rois, decode
from sparse3d.recipes.detection_config import DetectionConfig
from sparse3d_ops.boxes import box_iou_3d
from tests.models.test_centerpoint import SMALL
from tests.models.two_objects import (
    BOXES,
    around_the_truth,
    assert_every_parameter_learns,
    assert_finds_both,
    assert_same_bits,
    assert_stays_finite,
    empty_frames,
    frame_of,
    learn,
    quick_statistics,
)

CONFIG = CenterPointTwoStageConfig(
    **{f.name: getattr(SMALL, f.name) for f in fields(SMALL) if f.name != "kind"},
    sampling=RoiSamplingConfig(count=24),
    roi_head=RoiHeadConfig((48,), (32,), (32,), dropout=0.0, box_beta=0.0, corner_weight=0.0),
)
# Low enough that an untrained heatmap has boxes.
EAGER = replace(
    CONFIG, decode=CenterDecodeConfig(score_threshold=0.0, iou_alphas=(0.5,), nms_thresholds=(0.5,))
)


def model_of(config: CenterPointTwoStageConfig = CONFIG) -> CenterPointTwoStage:
    torch.manual_seed(0)
    model = build_detector(config)
    assert isinstance(model, CenterPointTwoStage)
    return model


def near_truth(model: CenterPointTwoStage, spread: float = 0.15) -> None:
    """In place of what a trained first stage would propose: boxes around those of `BOXES`."""
    generator = torch.Generator().manual_seed(1)

    def propose(maps) -> Rois:
        boxes, labels = around_the_truth(spread, generator)
        frames = len(maps.groups[0].heatmap)
        return Rois.of([Detections(boxes, torch.full((len(boxes),), 0.8), labels)] * frames, like=boxes)

    model.propose = propose  # pyright: ignore[reportAttributeAccessIssue]


def test_every_parameter_gets_a_gradient_and_the_map_one_from_the_second_stage():
    model = model_of()
    near_truth(model)
    batch = DetectionBatch.collate([frame_of(), frame_of(seed=1)])
    losses = model.loss(batch)
    assert {"heatmap", "box", "roi_score", "roi_box"} <= set(losses)
    first = model.bev.levels[0][0].weight
    (grad,) = torch.autograd.grad(losses["roi_box"], first, retain_graph=True)
    assert grad.abs().sum() > 0
    assert_every_parameter_learns(model, losses)


@empty_frames
@pytest.mark.parametrize("config", [CONFIG, EAGER], ids=["strict", "eager"])
def test_empty_frames_stay_finite(frames, config):
    assert_stays_finite(model_of(config), frames)


def test_same_bits_every_time():
    assert_same_bits(lambda: model_of(EAGER))


@torch.no_grad()
def test_scores_are_the_root_of_both_and_boxes_those_of_the_code():
    """With the second stage made to say one thing of every RoI."""
    model = model_of(EAGER).eval()
    batch = DetectionBatch.collate([frame_of()])
    (first,) = CenterPoint.predict(model, batch)
    head = model.roi_head
    head.score_out.weight.zero_(), head.box_out.weight.zero_()
    head.score_out.bias.fill_(math.log(0.2 / 0.8))
    head.box_out.bias.copy_(torch.tensor([0.0, 0, 0.5, 0, 0, math.log(2), 0.1]))
    (second,) = model.predict(batch)
    assert len(first.boxes) > 50
    torch.testing.assert_close(second.scores, (0.2 * first.scores).sqrt())
    want = first.boxes.clone()
    want[:, 2] += 0.5 * want[:, 5]
    want[:, 5] *= 2
    want[:, 6] += 0.1
    torch.testing.assert_close(second.boxes, want)
    assert torch.equal(second.labels, first.labels)


@torch.no_grad()
def test_features_are_those_of_the_five_points_side_by_side():
    model = model_of()
    bev = torch.zeros(1, model.config.bev.out_channels, 16, 16)
    bev[0, 3] = torch.arange(16.0)[:, None] + 0.5  # x of the cells, whose side is one metre
    bev[0, 5] = torch.arange(16.0)[None] - 7.5
    box = torch.tensor([[6.0, 1.0, 0.0, 4.0, 2.0, 1.5, math.pi / 2]])
    rois = Rois(box, torch.ones(1), torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    features = model.features_of(rois, bev).reshape(5, -1)
    want = torch.tensor([[6.0, 1], [6, 3], [6, -1], [5, 1], [7, 1]])  # centre, front, back, left, right
    torch.testing.assert_close(features[:, [3, 5]], want)


@pytest.mark.slow
def test_overfits_one_frame():
    # Poor boxes stay among the RoIs to the end: the score learns from them too.
    decode = replace(CONFIG.decode, score_threshold=0.005)
    model, batch = model_of(replace(CONFIG, decode=decode)), DetectionBatch.collate([frame_of()])
    quick_statistics(model)
    first, last = learn(model, batch, 150, lr=3e-3)
    assert last < 0.15 * first
    (found,) = model.eval().predict(batch)
    assert_finds_both(found)


@pytest.mark.slow
def test_the_second_stage_refines_boxes_that_are_off():
    """Trained around two objects, it brings other boxes around them nearer."""
    model, batch = model_of(), DetectionBatch.collate([frame_of()])
    near_truth(model)
    learn(model, batch, 150, lr=3e-3)
    bev = model.bev_map(batch)
    rois = model.propose(model.head(bev))
    with torch.no_grad():
        output = model.roi_head(model.features_of(rois, bev))
    truth, rows = torch.from_numpy(BOXES), torch.arange(40)
    before = box_iou_3d(rois.boxes, truth)[rows, rois.labels]
    after = box_iou_3d(decode(output.codes, rois.boxes), truth)[rows, rois.labels]
    assert after.mean() > before.mean() + 0.05
    assert (after > before).float().mean() > 0.7


def test_parameters_of_the_second_stage_are_those_of_the_published_network():
    """Waymo's two-stage config: five points of 512 features, layers of 256 with a norm each, 8 outputs."""
    model = CenterPointTwoStage(CenterPointTwoStageConfig())
    want = 5 * 512 * 256 + 5 * 256 * 256 + 6 * 2 * 256 + 257 * 8
    assert sum(p.numel() for p in model.roi_head.parameters()) == want == 988_168
    first = sum(p.numel() for p in CenterPoint(CenterPointTwoStageConfig()).parameters())
    assert sum(p.numel() for p in model.parameters()) == first + want


def test_the_config_of_the_small_one_builds_and_its_first_stage_is_a_centerpoint():
    config = load(DetectionConfig, "centerpoint_two_stage_minidrive").model
    assert isinstance(config, CenterPointTwoStageConfig)
    model = CenterPointTwoStage(config)
    assert sum(p.numel() for p in model.parameters()) < 2e6
    left = model.load_state_dict(CenterPoint(config).state_dict(), strict=False)
    assert not left.unexpected_keys and all(key.startswith("roi_head.") for key in left.missing_keys)
