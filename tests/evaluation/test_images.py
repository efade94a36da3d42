"""Scores of pictures: worked by hand, against definitions written as loops, and scikit-image where it is."""

import math

import numpy as np
import pytest
import torch

from sparse3d.errors import DataError
from sparse3d.evaluation.images import (
    ImageScores,
    error_map,
    mean_scores,
    on_white,
    psnr,
    score,
    score_depth,
    ssim,
    ssim_map,
)
from sparse3d.evaluation.lpips import Lpips


def pictures(seed=0, height=17, width=21, noise=0.1):
    rng = np.random.default_rng(seed)
    target = rng.random((height, width, 3))
    return np.clip(target + rng.normal(0, noise, target.shape), 0, 1), target


def slow_ssim(x, y, row, column, channel):
    """Wang et al. 2004, one window at a time."""
    total = mean_x = mean_y = xx = yy = xy = 0.0
    for i in range(-5, 6):
        for j in range(-5, 6):
            weight = math.exp(-(i * i + j * j) / (2 * 1.5**2))
            a, b = x[row + i, column + j, channel], y[row + i, column + j, channel]
            total += weight
            mean_x, mean_y = mean_x + weight * a, mean_y + weight * b
            xx, yy, xy = xx + weight * a * a, yy + weight * b * b, xy + weight * a * b
    mean_x, mean_y, xx, yy, xy = (v / total for v in (mean_x, mean_y, xx, yy, xy))
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    return luminance * (2 * (xy - mean_x * mean_y) + 9e-4) / (xx - mean_x**2 + yy - mean_y**2 + 9e-4)


def test_psnr_by_hand():
    target = np.zeros((2, 2, 3))
    predicted = target.copy()
    predicted[0, 0] = 0.1, 0.2, 0.2
    assert psnr(predicted, target) == pytest.approx(-10 * math.log10(0.09 / 12))
    mask = np.array([[True, False], [False, False]])
    assert psnr(predicted, target, mask) == pytest.approx(-10 * math.log10(0.03))
    assert psnr(predicted, target, ~mask) == math.inf
    assert math.isnan(psnr(predicted, target, np.zeros((2, 2), bool)))
    assert psnr(np.full((2, 2, 3), 0.5), target) == pytest.approx(6.0206, abs=1e-4)


def test_ssim_is_its_definition():
    x, y = pictures()
    found = ssim_map(x, y)
    assert found.shape == (7, 11, 3)
    for row, column, channel in ((0, 0, 0), (6, 10, 2), (3, 4, 1)):
        assert found[row, column, channel] == pytest.approx(
            slow_ssim(x, y, row + 5, column + 5, channel), abs=1e-12
        )
    assert ssim(x, y) == pytest.approx(found.mean()) and ssim(y, y) == pytest.approx(1)
    assert ssim(x, y) == pytest.approx(ssim(y, x)) and ssim(x, y) < 1
    assert ssim(1 - y, y) < 0  # the opposite structure


def test_ssim_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    x, y = pictures(1, 40, 33)
    options = {"data_range": 1, "channel_axis": -1, "gaussian_weights": True, "sigma": 1.5}
    theirs = metrics.structural_similarity(x, y, use_sample_covariance=False, **options)
    assert ssim(x, y) == pytest.approx(theirs, abs=1e-12)
    assert psnr(x, y) == pytest.approx(metrics.peak_signal_noise_ratio(y, x, data_range=1))


def test_masked_scores_do_not_see_the_rest():
    x, y = pictures()
    mask = np.zeros((17, 21), bool)
    mask[4:12, 6:15] = True
    other = np.where(mask[..., None], x, 0.3)
    plain, changed = score(x, y, mask), score(other, y, mask)
    assert plain.psnr == changed.psnr and plain.ssim == changed.ssim and plain.error == changed.error
    assert plain.ssim == pytest.approx(ssim(on_white(x, mask), on_white(y, mask)))
    assert plain.psnr == pytest.approx(psnr(x, y, mask)) != score(x, y).psnr
    hidden = score(x, y, np.zeros_like(mask))
    assert math.isnan(hidden.psnr) and math.isnan(hidden.ssim)


def test_means_over_views_leave_out_what_is_not_known():
    a, b = ImageScores(20, 0.5, math.nan, 0.1), ImageScores(30, 0.7, 0.2, 0.3)
    none = ImageScores(*[math.nan] * 4)
    mean = mean_scores([a, b, none])
    assert (mean.psnr, mean.ssim, mean.lpips, mean.error) == pytest.approx((25, 0.6, 0.2, 0.2))
    assert math.isnan(mean_scores([none]).psnr) and math.isnan(mean_scores([]).psnr)
    assert b.average_error == pytest.approx((1e-3 * math.sqrt(0.3) * 0.2) ** (1 / 3))


def test_depth_by_hand():
    measured = np.array([[1.0, 2, 4], [np.nan, 0, 8]])
    predicted = np.array([[1.1, 2, 2], [1, 1, np.inf]])
    found = score_depth(predicted, measured)
    assert found.known == 3
    assert found.absolute == pytest.approx(2.1 / 3) and found.relative == pytest.approx((0.1 + 0.5) / 3)
    assert found.root_mean_square == pytest.approx(math.sqrt(4.01 / 3))
    assert found.within_25_percent == pytest.approx(2 / 3)
    assert score_depth(predicted, measured, np.eye(2, 3, dtype=bool)).known == 1
    assert math.isnan(score_depth(predicted, np.full((2, 3), np.nan)).absolute)


def test_error_maps_run_from_black_to_white():
    target = np.zeros((1, 3, 3))
    predicted = target + np.array([0, 0.125, 0.4])[:, None]
    assert error_map(predicted, target).tolist() == [[[0, 0, 0], [255, 128, 0], [255, 255, 255]]]


@pytest.mark.parametrize(
    ("predicted", "complaint"),
    [
        (np.zeros((4, 4, 4)), "expected the same"),
        (np.zeros((11, 12, 3), np.uint8), "expected floats"),
        (np.zeros((11, 12)), "expected the same"),
    ],
)
def test_pictures_that_cannot_be_compared(predicted, complaint):
    with pytest.raises(ValueError, match=complaint):
        psnr(predicted, np.zeros((11, 12, 3)))
    with pytest.raises(ValueError, match="window is 11 x 11"):
        ssim(np.zeros((10, 20, 3)), np.zeros((10, 20, 3)))
    with pytest.raises(ValueError, match="mask is"):
        psnr(np.zeros((11, 12, 3)), np.zeros((11, 12, 3)), np.zeros((12, 11), bool))


def slow_lpips(module, x, y, names):
    """The paper's formula with the layers in the order in which torchvision's classifier has them."""
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    a, b = (torch.tensor(((2 * v - 1) - shift) / scale, dtype=torch.float64).permute(2, 0, 1) for v in (x, y))
    convs, lins, total = iter(module.convs), iter(module.weights), 0.0
    for name in names:
        if name.startswith("pool"):
            a, b = (torch.nn.functional.max_pool2d(v[None], int(name[4:]), 2)[0] for v in (a, b))
            continue
        conv = next(convs)
        a, b = (
            torch.relu(
                torch.nn.functional.conv2d(
                    v[None], conv.weight.double(), conv.bias.double(), conv.stride, conv.padding
                )[0]
            )
            for v in (a, b)
        )
        if name == "tap":
            weights = next(lins).double()
            layer = 0.0
            for row in range(a.shape[1]):
                for column in range(a.shape[2]):
                    f, g = a[:, row, column], b[:, row, column]
                    f, g = f / (f.norm() + 1e-10), g / (g.norm() + 1e-10)
                    layer += float((weights * (f - g) ** 2).sum())
            total += layer / (a.shape[1] * a.shape[2])
    return total


ORDER = {
    "alex": ["tap", "pool3", "tap", "pool3", "tap", "tap", "tap"],
    "vgg": ["conv", "tap", "pool2", "conv", "tap", "pool2", "conv", "conv", "tap"]
    + ["pool2", "conv", "conv", "tap", "pool2", "conv", "conv", "tap"],
}


def weight_files(folder, network):
    """State dicts as torchvision and the paper's release name them, with random numbers."""
    torch.manual_seed(0)
    module = Lpips(network)
    places = {"alex": (0, 3, 6, 8, 10), "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)}[network]
    features = {"classifier.1.weight": torch.zeros(3)}
    for place, conv in zip(places, module.convs, strict=True):
        features[f"features.{place}.weight"] = torch.randn_like(conv.weight) * conv.weight[0].numel() ** -0.5
        features[f"features.{place}.bias"] = torch.randn_like(conv.bias) * 0.1
    lin = {f"lin{i}.model.1.weight": torch.rand(1, len(w), 1, 1) for i, w in enumerate(module.weights)}
    torch.save(features, folder / "features.pth")
    torch.save(lin, folder / "lin.pth")
    return folder / "features.pth", folder / "lin.pth"


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_is_its_definition(tmp_path, network):
    module = Lpips.load(*weight_files(tmp_path, network), network)
    x, y = pictures(2, 40, 36)
    assert module(x, y) == pytest.approx(slow_lpips(module, x, y, ORDER[network]), rel=1e-4)  # float32
    assert module(y, y) == 0 and module(x, y) == pytest.approx(module(y, x)) and module(x, y) > 0
    assert score(x, y, lpips=module).lpips == module(x, y)


def test_lpips_with_files_that_do_not_fit(tmp_path):
    features, lin = weight_files(tmp_path, "alex")
    with pytest.raises(DataError, match="features.pth: has 5 layers called features.N, vgg has 13"):
        Lpips.load(features, lin, "vgg")
    with pytest.raises(DataError, match="features.pth: lin0.model.1.weight is not there"):
        Lpips.load(features, features)
    with pytest.raises(ValueError, match="at least 32 x 32"):
        Lpips()(np.zeros((20, 40, 3)), np.zeros((20, 40, 3)))
