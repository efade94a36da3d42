"""TransFusion's head: queries, matching, losses and boxes worked by hand; laws; a DSVT that ends in it."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sparse3d.config import load
from sparse3d.errors import ConfigError
from sparse3d.frames import DetectionBatch, LidarFrame
from sparse3d.models.center_code import BevGrid, encode
from sparse3d.models.dsvt import DSVT, DSVTConfig
from sparse3d.models.query_decoder import QueryDecoder
from sparse3d.models.query_matching import MatchingConfig, label_cost, match_queries
from sparse3d.models.transfusion_boxes import (
    QueryOutput,
    TransFusionDecodeConfig,
    boxes_of,
    decode_queries,
)
from sparse3d.models.transfusion_head import TransFusionHead, TransFusionHeadConfig, best_peaks
from sparse3d.recipes.detection_config import DetectionConfig
from tests.models.test_dsvt import PILLARS, parameters
from tests.models.two_objects import (
    BOXES,
    assert_every_parameter_learns,
    assert_finds_both,
    assert_same_bits,
    assert_stays_finite,
    empty_frames,
    frame_of,
    learn,
    no_points,
    quick_statistics,
    total,
)

GRID = BevGrid((0.0, -8.0, -2.0, 16.0, 8.0, 2.0), (1.0, 1.0), (16, 16))
CLASSES = ("Car", "Pedestrian")
HEAD = TransFusionHeadConfig(
    queries=12, channels=16, heads=2, feedforward=24, branch_channels=16, crowded=("Pedestrian",)
)
MODEL = replace(PILLARS, head=HEAD)


# ---- queries -----------------------------------------------------------------------------------------------


def test_peaks_by_hand():
    heatmap = torch.full((1, 2, 4, 5), -9.0)
    heatmap[0, 0, 1, 1], heatmap[0, 0, 1, 2], heatmap[0, 0, 3, 4] = (
        2.0,
        1.0,
        0.5,
    )  # the second has a neighbour
    heatmap[0, 1, 0, 0], heatmap[0, 1, 0, 1] = 3.0, 1.5
    crowded = torch.tensor([False, True])
    peaks = best_peaks(heatmap, crowded, 4)
    assert peaks.labels.tolist() == [[1, 0, 1, 0]]
    assert peaks.cells.tolist() == [[0, 1 * 5 + 1, 1, 3 * 5 + 4]]
    assert peaks.scores[0].tolist() == pytest.approx([1 / (1 + math.exp(-v)) for v in (3, 2, 1.5, 0.5)])
    alone = best_peaks(heatmap, torch.tensor([False, False]), 3)
    assert alone.cells.tolist() == [[0, 6, 19]]  # no neighbour within a class counts any more


def test_places_that_are_no_peaks_fill_up_with_a_score_of_zero():
    x, y = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    peaks = best_peaks((x + y)[None, None], torch.tensor([False]), 3)
    assert peaks.cells.tolist() == [[19, 0, 1]] and peaks.scores[0, 1:].tolist() == [0.0, 0.0]
    assert best_peaks((x + y)[None, None], torch.tensor([True]), 99).cells.shape == (1, 20)


@torch.no_grad()
def test_queries_stand_at_the_middle_of_their_cell():
    """Untrained centre branches set to nothing: the code's place is the cell's middle."""
    torch.manual_seed(0)
    head = TransFusionHead(8, CLASSES, GRID, HEAD).eval()
    head.center[3].weight.zero_(), head.center[3].bias.zero_()
    bev = torch.randn(2, 8, 16, 16)
    output = head(bev)
    peaks = best_peaks(output.heatmap, torch.tensor([False, True]), 12)
    want = torch.stack([peaks.cells // 16 + 0.5, peaks.cells % 16 + 0.5], dim=2)
    assert torch.equal(output.code[..., :2], want) and torch.equal(output.labels, peaks.labels)
    box = boxes_of(output.code[0], GRID)
    torch.testing.assert_close(box[:, :2], want[0] + torch.tensor([0.0, -8.0]))


def test_without_places_the_decoder_is_torchs():
    torch.manual_seed(0)
    decoder = QueryDecoder(16, 4, 24, 0.0).eval()
    for places in (decoder.query_places, decoder.key_places):
        nn.init.zeros_(places[3].weight), nn.init.zeros_(places[3].bias)
    layer = nn.TransformerDecoderLayer(16, 4, 24, 0.0, batch_first=True).eval()
    theirs = {
        "self_attn": decoder.self_attention,
        "multihead_attn": decoder.cross_attention,
        "linear1": decoder.widen,
        "linear2": decoder.narrow,
        "norm1": decoder.self_norm,
        "norm2": decoder.cross_norm,
        "norm3": decoder.norm,
    }
    layer.load_state_dict({f"{a}.{b}": t for a, part in theirs.items() for b, t in part.state_dict().items()})
    queries, keys = torch.randn(2, 5, 16), torch.randn(2, 30, 16)
    got = decoder(queries, torch.randn(2, 5, 2), keys, torch.randn(30, 2))
    torch.testing.assert_close(got, layer(queries, keys))


def test_the_decoder_does_not_see_the_order_of_queries_and_keys():
    torch.manual_seed(0)
    decoder = QueryDecoder(16, 4, 24, 0.0).eval()
    queries, keys, at, places = (
        torch.randn(1, 5, 16),
        torch.randn(1, 30, 16),
        torch.rand(1, 5, 2),
        torch.rand(30, 2),
    )
    q, k = torch.randperm(5), torch.randperm(30)
    got = decoder(queries[:, q], at[:, q], keys[:, k], places[k])
    torch.testing.assert_close(got, decoder(queries, at, keys, places)[:, q])


# ---- matching and losses -----------------------------------------------------------------------------------


def test_label_cost_by_hand():
    # p = 0.8: -0.25 * 0.2^2 * log 0.8 + 0.75 * 0.8^2 * log 0.2.
    logits = torch.tensor([[math.log(4.0), 0.0]])
    want = -0.25 * 0.04 * math.log(0.8) + 0.75 * 0.64 * math.log(0.2)
    even = 0.5 * 0.25 * math.log(0.5)
    cost = label_cost(logits, torch.tensor([0, 1, 0]), 0.25, 2.0)
    assert cost[0].tolist() == pytest.approx([want, even, want], rel=1e-5)


def test_matching_is_the_best_of_all_assignments():
    torch.manual_seed(0)
    config = MatchingConfig()
    for queries, objects in ((5, 3), (3, 3), (2, 4), (4, 0)):

        def random(count):
            at = torch.rand(count, 3) * torch.tensor([16.0, 16.0, 1.0]) - torch.tensor([0.0, 8.0, 0.5])
            return torch.cat([at, torch.rand(count, 3) * 4 + 3, torch.randn(count, 1)], dim=1)

        boxes, truth = random(queries), random(objects)
        logits, labels = torch.randn(queries, 2), torch.randint(0, 2, (objects,))

        from sparse3d_ops.boxes import box_iou_3d

        place = (boxes[:, None, :2] - truth[None, :, :2]).abs().sum(2) / 16  # the bounds are 16 m wide
        cost = 0.15 * label_cost(logits, labels, 0.25, 2.0) + 0.25 * place - 0.25 * box_iou_3d(boxes, truth)
        fewer = min(queries, objects)
        best = min(
            (
                sum(float(cost[q, g]) for q, g in zip(rows, columns, strict=True))
                for rows in itertools.permutations(range(queries), fewer)
                for columns in itertools.combinations(range(objects), fewer)
            ),
            default=0.0,
        )
        query, box = match_queries(logits, boxes, truth, labels, GRID, config)
        assert len(query) == len(set(box.tolist())) == fewer and query.tolist() == sorted(set(query.tolist()))
        assert float(cost[query, box].sum()) == pytest.approx(best, abs=1e-5)


def test_a_diverged_network_matches_somehow():
    boxes = torch.full((3, 7), torch.nan)
    query, _ = match_queries(
        torch.full((3, 2), torch.nan),
        boxes,
        torch.from_numpy(BOXES),
        torch.tensor([0, 1]),
        GRID,
        MatchingConfig(),
    )
    assert len(query) == 2


def output_of(code: torch.Tensor, labels, scores, peaks, **more) -> QueryOutput:
    """One frame of P queries, and a heatmap that says nothing."""
    heatmap = torch.full((1, 2, 16, 16), -12.0)
    parts = (torch.tensor([labels]), torch.tensor([peaks]), torch.tensor([scores]))
    return QueryOutput(heatmap, *parts, code[None], more.get("velocity"), more.get("iou"))


def true_code() -> torch.Tensor:
    return encode(torch.from_numpy(BOXES), torch.zeros(2, 2, dtype=torch.int64), GRID)


def moving_frame(velocities) -> LidarFrame:
    return replace(frame_of(), velocities=np.array(velocities, np.float32))


def test_losses_by_hand():
    """Three queries, of which the last two say the two boxes, one of them 0.3 m too high."""
    code = torch.cat([true_code()[:1] + 3.0, true_code().flip(0)])
    code[2, 2] += 0.3
    scores = [[-2.0, -3.0], [-1.0, 2.0], [1.0, -4.0]]
    velocity = torch.tensor([[[9.0, 9.0], [1.0, 1.0], [2.0, -1.0]]])
    fit = torch.tensor([[0.5, 0.0, 0.25]])
    output = output_of(code, [0, 1, 0], scores, [0.3, 0.5, 0.9], velocity=velocity, iou=fit)
    config = replace(HEAD, velocity_branch=True, iou_branch=True)
    head = TransFusionHead(8, CLASSES, GRID, config)
    losses = head.loss(output, DetectionBatch.collate([moving_frame([[2.5, -2.0], [np.nan, 0.0]])]))

    def focal(logit, wanted):
        p = 1 / (1 + math.exp(-logit))
        return -0.25 * (1 - p) ** 2 * math.log(p) if wanted else -0.75 * p**2 * math.log(1 - p)

    each = [
        focal(s, k)
        for row, one in zip(scores, ([0, 0], [0, 1], [1, 0]), strict=True)
        for s, k in zip(row, one, strict=True)
    ]
    assert losses["score"].item() == pytest.approx(sum(each) / 2, rel=1e-4)
    assert losses["box"].item() == pytest.approx(0.25 * 0.3 / 2, rel=1e-3)
    assert losses["velocity"].item() == pytest.approx(0.05 * (0.5 + 1.0), rel=1e-5)  # one of them is known
    # The car is 1.5 m high: 0.3 m too high leaves an IoU of 1.2 / 1.8, so 2 IoU - 1 is 1 / 3.
    assert losses["iou"].item() == pytest.approx(0.5 * ((1 - 0.0) + (1 / 3 - 0.25)) / 2, rel=1e-3)
    # The heatmap says 6e-6 everywhere, clamped to 1e-4: its two peaks cost -log 1e-4 each.
    assert losses["heatmap"].item() == pytest.approx(-math.log(1e-4), rel=1e-2)


def test_the_truth_costs_nothing_but_in_the_heatmap():
    output = output_of(true_code(), [0, 1], [[30.0, -30.0], [-30.0, 30.0]], [1.0, 1.0])
    losses = TransFusionHead(8, CLASSES, GRID, HEAD).loss(output, DetectionBatch.collate([frame_of()]))
    assert set(losses) == {"heatmap", "score", "box"}
    assert losses["score"].item() == pytest.approx(0, abs=1e-6)
    assert losses["box"].item() == pytest.approx(0, abs=1e-5)


# ---- boxes -------------------------------------------------------------------------------------------------


def test_decoding_by_hand():
    code = torch.cat([true_code(), true_code()[:1]])
    code[2, 0] = 99.0  # out of bounds
    velocity, fit = torch.randn(1, 3, 2), torch.tensor([[-1.0, 0.28, 1.0]])
    output = output_of(
        code,
        [0, 1, 0],
        [[0.0, 9.0], [9.0, math.log(3)], [3.0, 3.0]],
        [0.4, 0.8, 1.0],
        velocity=velocity,
        iou=fit,
    )
    (found,) = decode_queries(output, GRID, TransFusionDecodeConfig(iou_alpha=0.0))
    assert found.scores.tolist() == pytest.approx([0.8 * 0.75, 0.4 * 0.5])  # each by its own class alone
    assert found.labels.tolist() == [1, 0] and torch.equal(found.velocities, velocity[0, [1, 0]])
    torch.testing.assert_close(found.boxes, torch.from_numpy(BOXES[[1, 0]]))
    (found,) = decode_queries(output, GRID, TransFusionDecodeConfig(iou_alpha=0.5))
    assert found.scores.tolist() == pytest.approx([(0.6 * 0.64) ** 0.5])  # a score of 0 is not above 0
    (found,) = decode_queries(output, GRID, TransFusionDecodeConfig(score_threshold=0.7, iou_alpha=0.0))
    assert len(found.boxes) == 0


def test_suppression_where_it_is_asked_for():
    code = true_code()[[0, 0, 0]]
    code[1, 0] += 0.1
    output = output_of(code, [0, 0, 1], [[1.0, 1.0]] * 3, [0.5, 0.9, 0.7])
    counts = {
        (threshold, over): len(
            decode_queries(output, GRID, TransFusionDecodeConfig(nms_threshold=threshold, nms_over=over))[
                0
            ].boxes
        )
        for threshold in (1.0, 0.2)
        for over in ("class", "all")
    }
    assert counts == {(1.0, "class"): 3, (1.0, "all"): 3, (0.2, "class"): 2, (0.2, "all"): 1}


# ---- a whole detector --------------------------------------------------------------------------------------


def model_of(config: DSVTConfig = MODEL) -> DSVT:
    torch.manual_seed(0)
    return DSVT(config)


def test_every_parameter_gets_a_gradient():
    model = model_of(replace(MODEL, head=replace(HEAD, velocity_branch=True, iou_branch=True)))
    # Three objects: the signs of an L1 loss do not cancel.
    frames = [
        moving_frame([[1.0, 0.0], [0.0, 1.0]]),
        moving_frame([[1.0, 0.0], [0.0, 1.0]]).select_boxes([0]),
    ]
    losses = model.loss(DetectionBatch.collate(frames))
    assert set(losses) == {"heatmap", "score", "box", "velocity", "iou"}
    assert_every_parameter_learns(model, losses)


@empty_frames
def test_empty_frames_stay_finite(frames):
    assert_stays_finite(model_of(), frames)


def test_same_bits_every_time():
    assert_same_bits(model_of)


@torch.no_grad()
def test_frames_of_a_batch_do_not_see_each_other():
    model = model_of().eval()
    frames = [frame_of(), no_points(), frame_of(seed=1)]
    together = model(DetectionBatch.collate(frames))
    for k, frame in enumerate(frames):
        alone = model(DetectionBatch.collate([frame]))
        torch.testing.assert_close(together.heatmap[k], alone.heatmap[0], rtol=1e-4, atol=1e-5)
        if k != 1:  # without points all cells are equal, and rounding decides which are queries
            torch.testing.assert_close(together.code[k], alone.code[0], rtol=1e-3, atol=1e-3)


def test_losses_under_bfloat16_autocast_are_float32_and_finite():
    model, batch = model_of(), DetectionBatch.collate([frame_of()])
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(batch)
        found = model.predict(batch)
    total(losses).backward()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert found[0].boxes.dtype == torch.float32


@pytest.mark.slow
def test_it_learns_a_frame_by_heart():
    model, batch = model_of(), DetectionBatch.collate([frame_of()])
    quick_statistics(model)
    first, last = learn(model, batch, 200, lr=3e-3)
    assert last < 0.1 * first
    (found,) = model.eval().predict(batch)
    # No suppression: one query an object is left that scores.
    assert found.scores[1] > 0.5 > 5 * found.scores[2]
    assert_finds_both(found)


def test_parameters_are_those_of_the_published_head():
    """Layer by layer from the published nuScenes config of DSVT, whose maps have 3 x 128 channels."""
    c, classes = 128, 10
    shared = 384 * c * 9 + c
    heatmap = c * c * 9 + 2 * c + c * classes * 9 + classes
    embedding = classes * c + c
    attention = 4 * (c * c + c)
    places = (2 * c + c) + 2 * c + (c * c + c)
    decoder = 2 * attention + 2 * places + (c * 256 + 256) + (256 * c + c) + 3 * 2 * c
    branches = sum(c * 64 + 2 * 64 + 64 * n + n for n in (2, 1, 3, 2, 2, 1, classes))
    want = shared + heatmap + embedding + decoder + branches

    config = load(DetectionConfig, "dsvt_nuscenes").model
    assert isinstance(config, DSVTConfig) and isinstance(config.head, TransFusionHeadConfig)
    model = DSVT(config)
    assert parameters(model.head) == want == 895_839
    assert isinstance(model.head, TransFusionHead) and model.head.crowded.tolist() == [False] * 8 + [True] * 2


def test_classes_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"head.crowded names \['Cone'\]"):
        replace(MODEL, head=replace(HEAD, crowded=("Cone",)))


def test_config_reads_from_yaml(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text("head: {kind: transfusion, queries: 50, matching: {iou: 0.5}, loss: {box: 0.5}}\n")
    head = load(DSVTConfig, path).head
    assert isinstance(head, TransFusionHeadConfig) and (head.queries, head.matching.iou) == (50, 0.5)
    path.write_text("head: {shared_channels: 32}\n")
    assert load(DSVTConfig, path).head == replace(DSVTConfig().head, shared_channels=32)
