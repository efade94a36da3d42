"""Structural similarity of two pictures, to learn from. One schema here, one body a device.

Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004): with mu,
sigma^2 and sigma_xy the weighted moments of the 11 x 11 pixels around one, Gaussian weights of sigma 1.5,
channel by channel,

    S = (2 mu_x mu_y + C1) (2 sigma_xy + C2) / ((mu_x^2 + mu_y^2 + C1) (sigma_x^2 + sigma_y^2 + C2))

for values in [0, 1]: C1 = 0.01^2, C2 = 0.03^2. Only windows that lie in the picture count. Variances are
means of squares less squares of means: in float32 their last digits are noise of 1e-7, beside C2 = 9e-4.
Repeatable bit for bit for any number of threads.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_same_device, check_tensor

EXACT = (torch.float32, torch.float64)
TAPS = 11
SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2


@cache
def weights(dtype: torch.dtype) -> np.ndarray:
    """(11,) of the window along one axis; their sum is 1."""
    values = np.exp(-0.5 * ((np.arange(TAPS) - TAPS // 2) / SIGMA) ** 2)
    return torch.from_numpy(values / values.sum()).to(dtype).numpy()


@torch.library.custom_op("sparse3d::ssim_map", mutates_args=(), device_types="cpu")
def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """(H, W, C) float32 or float64, both -> (H - 10, W - 10, C): the similarity around each pixel whose
    window lies in the picture, 1 where both agree. ValueError for pictures smaller than the window."""
    from sparse3d_ops.cpu import structural_similarity as body

    _check(x, y)
    out = _room(x)
    c1, c2 = _constants(x)
    body.similarity(_flat(x), _flat(y), weights(x.dtype), x.shape[2], c1, c2, _flat(out))
    return out


@ssim_map.register_kernel("cuda")
def _(x: Tensor, y: Tensor) -> Tensor:
    from sparse3d_ops.gpu import structural_similarity as body

    _check(x, y)
    out = _room(x)
    taps = torch.from_numpy(weights(x.dtype)).to(x.device)
    body.similarity(_plain(x), _plain(y), taps, C1, C2, out)
    return out


@torch.library.custom_op("sparse3d::ssim_slope", mutates_args=(), device_types="cpu")
def ssim_slope(grad: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of sum(grad ssim_map(x, y)) in x: (H - 10, W - 10, C), (H, W, C), (H, W, C) -> (H, W, C). As
    the similarity is symmetric, that in y is `ssim_slope(grad, y, x)`. It cannot be differentiated again."""
    from sparse3d_ops.cpu import structural_similarity as body

    _check_slope(grad, x, y)
    out = x.new_empty(x.shape)
    c1, c2 = _constants(x)
    body.slope(_flat(grad), _flat(x), _flat(y), weights(x.dtype), x.shape[2], c1, c2, _flat(out))
    return out


@ssim_slope.register_kernel("cuda")
def _(grad: Tensor, x: Tensor, y: Tensor) -> Tensor:
    from sparse3d_ops.gpu import structural_similarity as body

    _check_slope(grad, x, y)
    out = x.new_empty(x.shape)
    taps = torch.from_numpy(weights(x.dtype)).to(x.device)
    body.slope(_plain(grad), _plain(x), _plain(y), taps, C1, C2, out)
    return out


@ssim_map.register_fake
def _(x, y):
    return _room(x)


@ssim_slope.register_fake
def _(grad, x, y):
    return x.new_empty(x.shape)


def _backward(ctx, grad):
    x, y = ctx.saved_tensors
    wants_x, wants_y = ctx.needs_input_grad
    return ssim_slope(grad, x, y) if wants_x else None, ssim_slope(grad, y, x) if wants_y else None


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


ssim_map.register_autograd(_backward, setup_context=_setup)


def _check(x: Tensor, y: Tensor) -> None:
    check_tensor("x", x, ("H", "W", "C"), EXACT)
    check_tensor("y", y, tuple(x.shape), (x.dtype,))
    check_same_device(("x", x), ("y", y))
    if min(x.shape[:2]) < TAPS:
        raise ValueError(f"pictures of {x.shape[1]} x {x.shape[0]} pixels; the window is {TAPS} x {TAPS}")


def _check_slope(grad: Tensor, x: Tensor, y: Tensor) -> None:
    _check(x, y)
    check_tensor("grad", grad, tuple(_inner(x)), (x.dtype,))
    check_same_device(("grad", grad), ("x", x))


def _inner(x: Tensor) -> tuple[int, int, int]:
    return x.shape[0] - TAPS + 1, x.shape[1] - TAPS + 1, x.shape[2]


def _room(x: Tensor) -> Tensor:
    return x.new_empty(_inner(x))


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()


def _flat(tensor: Tensor) -> np.ndarray:
    """A picture as (H, W C): neighbours of a channel are C apart."""
    return _plain(tensor).numpy().reshape(tensor.shape[0], -1)


def _constants(like: Tensor) -> tuple[np.floating, np.floating]:
    """Numbers of the pictures' dtype: they decide on the precision inside of a body."""
    kind = np.float32 if like.dtype == torch.float32 else np.float64
    return kind(C1), kind(C2)
