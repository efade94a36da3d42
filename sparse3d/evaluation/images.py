"""How like a rendered picture is to the photo: PSNR, SSIM, LPIPS, with masks, and how far depths are off.

Pictures are (H, W, 3) floats in [0, 1]. Means over views are means of the views' values, as in the literature
(not the PSNR of the mean error).

With a mask (H, W), the way of DTU's few-view benchmark, which SpaRe took over (RegNeRF, arXiv 2112.00724;
arXiv 2409.15041): PSNR over the masked pixels alone; SSIM and LPIPS of both pictures with white around the
mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

# Wang et al. 2004, "Image quality assessment": 11 x 11, sigma 1.5, K1 = 0.01, K2 = 0.03.
_RADIUS, _SIGMA = 5, 1.5
_C1, _C2 = 0.01**2, 0.03**2


@dataclass(frozen=True)
class ImageScores:
    """PSNR in dB, SSIM, LPIPS (NaN without its weights) and the mean absolute error of one picture; or of
    several, as a mean."""

    psnr: float
    ssim: float
    lpips: float
    error: float

    @property
    def average_error(self) -> float:
        """One figure: the geometric mean of 10^(-PSNR / 10), sqrt(1 - SSIM) and LPIPS (mip-NeRF, arXiv
        2103.13415); NaN without LPIPS."""
        parts = [10 ** (-self.psnr / 10), np.sqrt(max(1 - self.ssim, 0)), self.lpips]
        return float(np.prod(parts) ** (1 / 3))


def score(
    predicted: np.ndarray,
    target: np.ndarray,
    mask: np.ndarray | None = None,
    lpips: Callable[[np.ndarray, np.ndarray], float] | None = None,
) -> ImageScores:
    """All scores of one picture; `lpips` is a `sparse3d.evaluation.lpips.Lpips`. NaN where a mask hides
    everything."""
    predicted, target = _checked(predicted, target)
    shown, goal = predicted, target
    if mask is not None:
        shown, goal = on_white(predicted, mask), on_white(target, mask)
        if not mask.any():
            nan = float("nan")
            return ImageScores(nan, nan, nan, nan)
    error = np.abs(predicted - target)
    return ImageScores(
        psnr(predicted, target, mask),
        ssim(shown, goal),
        float("nan") if lpips is None else lpips(shown, goal),
        float(error.mean() if mask is None else error[mask].mean()),
    )


def mean_scores(scores: Sequence[ImageScores]) -> ImageScores:
    """The mean of each figure over views; views whose figure is NaN (a mask that hides everything) do not
    count. An infinite PSNR (equal pictures) stays infinite."""
    columns = [np.array([getattr(s, f.name) for s in scores]) for f in fields(ImageScores)]
    known = [column[~np.isnan(column)] for column in columns]
    return ImageScores(*(float(column.mean()) if len(column) else float("nan") for column in known))


def psnr(predicted: np.ndarray, target: np.ndarray, mask: np.ndarray | None = None) -> float:
    """10 log10(1 / mean squared error) over all channels, in dB, over the pixels of the mask where one is
    given. inf for equal pictures, NaN for a mask without a pixel."""
    predicted, target = _checked(predicted, target)
    squared = (predicted - target) ** 2
    if mask is not None:
        squared = squared[_checked_mask(mask, target)]
        if not squared.size:
            return float("nan")
    mean = float(squared.mean())
    return float("inf") if mean == 0 else float(-10 * np.log10(mean))


def ssim(predicted: np.ndarray, target: np.ndarray) -> float:
    """The mean of `ssim_map`."""
    return float(ssim_map(predicted, target).mean())


def ssim_map(predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Structural similarity (H - 10, W - 10, 3) of each channel around each pixel whose 11 x 11 window lies
    in the picture: Gaussian weights of sigma 1.5, no correction for the sample size, values in [0, 1] (Wang
    et al. 2004; the same as scikit-image's with gaussian_weights, sigma 1.5 and use_sample_covariance off).

    RegNeRF and FreeNeRF print scikit-image's default instead, a uniform 7 x 7 window, which is some
    thousandths off. ValueError for a picture smaller than the window.
    """
    x, y = _checked(predicted, target)
    if min(x.shape[:2]) <= 2 * _RADIUS:
        raise ValueError(f"pictures of {x.shape[1]} x {x.shape[0]}; SSIM's window is 11 x 11")
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    over = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    return over / ((mean_x**2 + mean_y**2 + _C1) * (var_x + var_y + _C2))


def on_white(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with white where the mask (H, W) is false."""
    return np.where(_checked_mask(mask, image)[..., None], image, 1.0)


@dataclass(frozen=True)
class DepthScores:
    """Depth against a measured one, over the pixels where both are known: mean absolute error and root mean
    square in metres, mean of |d - d*| / d*, and the part of pixels within 25 % (Eigen et al., arXiv
    1406.2283); `known` counts the pixels."""

    absolute: float
    root_mean_square: float
    relative: float
    within_25_percent: float
    known: int


def score_depth(predicted: np.ndarray, measured: np.ndarray, mask: np.ndarray | None = None) -> DepthScores:
    """Depth maps (H, W) in metres, along the optical axis or along the ray, both the same. Pixels that are
    not finite or not above 0 in either do not count; all NaN where none is left."""
    predicted, measured = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    if predicted.shape != measured.shape or predicted.ndim != 2:
        raise ValueError(f"depth maps of {predicted.shape} and {measured.shape}, expected the same (H, W)")
    with np.errstate(invalid="ignore"):
        known = np.isfinite(predicted) & np.isfinite(measured) & (predicted > 0) & (measured > 0)
    if mask is not None:
        known &= _checked_mask(mask, measured)
    p, m = predicted[known], measured[known]
    if not len(p):
        nan = float("nan")
        return DepthScores(nan, nan, nan, nan, 0)
    error = np.abs(p - m)
    return DepthScores(
        float(error.mean()),
        float(np.sqrt((error**2).mean())),
        float((error / m).mean()),
        float((np.maximum(p / m, m / p) < 1.25).mean()),
        len(p),
    )


def mean_depth_scores(scores: Sequence[DepthScores]) -> DepthScores:
    """The mean of each figure over the views that have one, and the sum of their pixels."""
    means = {}
    for f in fields(DepthScores):
        column = [getattr(s, f.name) for s in scores if s.known]
        means[f.name] = float(np.mean(column)) if column else float("nan")
    return DepthScores(**means | {"known": sum(s.known for s in scores)})


def error_map(predicted: np.ndarray, target: np.ndarray, most: float = 0.25) -> np.ndarray:
    """(H, W, 3) uint8: the absolute error of each pixel, mean over the channels, from black at 0 over red and
    yellow to white at `most`."""
    predicted, target = _checked(predicted, target)
    fraction = np.clip(np.abs(predicted - target).mean(-1) / most, 0, 1)
    return np.rint(255 * np.clip(3 * fraction[..., None] - np.arange(3), 0, 1)).astype(np.uint8)


def _blur(image: np.ndarray) -> np.ndarray:
    """Weighted means over the windows that lie in the picture: (H, W, C) -> (H - 10, W - 10, C)."""
    weights = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        length = image.shape[axis] - 2 * _RADIUS
        parts = [np.take(image, range(k, k + length), axis) * w for k, w in enumerate(weights)]
        image = np.sum(parts, 0)
    return image


def _checked(predicted: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted, target = np.asarray(predicted), np.asarray(target)
    if predicted.shape != target.shape or target.ndim != 3 or target.shape[2] != 3 or not target.size:
        raise ValueError(f"pictures of {predicted.shape} and {target.shape}, expected the same (H, W, 3)")
    if not all(np.issubdtype(image.dtype, np.floating) for image in (predicted, target)):
        raise ValueError(f"pictures are {predicted.dtype} and {target.dtype}, expected floats in [0, 1]")
    return predicted.astype(np.float64), target.astype(np.float64)


def _checked_mask(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    if mask.shape != image.shape[:2] or mask.dtype != np.bool_:
        raise ValueError(f"the mask is {mask.dtype} {mask.shape}, expected bool {image.shape[:2]}")
    return mask
