"""What is known, or likely, of depth, however it was rendered: its order, its measured value, its shape up to
scale, its smoothness where nothing was seen.

Depths are numbers (N,) in one unit for all arguments of a loss. Losses are means over what they are given,
and 0 for nothing at all (a batch may hold no pixel of known depth).
"""

import torch
from torch import Tensor

from sparse3d.nn.sums import repeatable_sum


def ranking(nearer: Tensor, farther: Tensor, margin: float) -> Tensor:
    """mean max(nearer - farther + margin, 0) of pairs (Q,): rendered depths of pixels whose order is known.
    It has no gradient where the order is right by the margin."""
    return _mean((nearer - farther + margin).clamp(min=0))


def continuity(depth: Tensor, neighbour: Tensor, margin: float) -> Tensor:
    """mean max(|depth - neighbour| - margin, 0) of pairs (Q,) that are next to each other and of like
    depth."""
    return _mean(((depth - neighbour).abs() - margin).clamp(min=0))


def metric_depth(depth: Tensor, measured: Tensor, within: float) -> Tensor:
    """Huber's loss of rendered depths (N,) against measured ones (N,); pixels of unknown depth (NaN) do not
    count. e^2 / 2 within, then `within` (|e| - within / 2)."""
    known = torch.isfinite(measured)
    error = (depth[known] - measured[known]).abs()
    small = error.clamp(max=within)
    return _mean(small * (error - small / 2))


def relative_depth(depth: Tensor, prior: Tensor) -> Tensor:
    """1 - r, with Pearson's correlation r of rendered depths (N,) and a map (N,) that is known up to scale
    and shift, as monocular ones are: 0 for any a depth + b with a > 0 of the right map, 2 where one falls as
    the other rises; for a map of disparity give 1 / depth. Of the map's variance the part 1 - r^2 is what a
    least squares fit leaves (MiDaS, arXiv 1907.01341, Eq. 4). Pixels of unknown depth (NaN) do not count; 0
    for fewer than two, and 1 where one of both is flat. SparseGS, arXiv 2312.00206, Sec. 3.2."""
    known = torch.isfinite(prior)
    d, p = depth[known], prior[known]
    if len(d) < 2:
        return depth.sum() * 0
    d, p = d - repeatable_sum(d) / len(d), p - repeatable_sum(p) / len(p)
    square = repeatable_sum(d * d) * repeatable_sum(p * p)
    # A root of nothing has no slope.
    return 1 - repeatable_sum(d * p) / square.clamp(min=torch.finfo(square.dtype).tiny).sqrt()


def roughness(depth: Tensor, opacity: Tensor) -> Tensor:
    """Mean over patches (N, h, w) of squared differences of depths next to each other, each weighted by the
    product of the two opacities, which gets no gradient: to become transparent is no way out.

    0 for a plane that faces the camera where depth is that along the optical axis; a slanted one has some.
    """
    o = opacity.detach()
    across = (o[:, :, 1:] * o[:, :, :-1] * (depth[:, :, 1:] - depth[:, :, :-1]).square()).flatten()
    down = (o[:, 1:] * o[:, :-1] * (depth[:, 1:] - depth[:, :-1]).square()).flatten()
    return _mean(across) + _mean(down)


def _mean(values: Tensor) -> Tensor:
    return repeatable_sum(values) / max(1, values.numel())
