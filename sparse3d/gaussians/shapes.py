"""The shape of Gaussians: rotations as quaternions and matrices, covariances, and the way back.

Quaternions are (w, x, y, z), of any length but 0; one of length 0 counts as no rotation. q and -q are the
same rotation. Covariance = R diag(s^2) R^T, square metres, with s the deviations along the Gaussian's own
axes; surfels have none along their third axis.
"""

import torch
from torch import Tensor


def rotation_matrices(quats: Tensor) -> Tensor:
    """(N, 4) -> (N, 3, 3), from the Gaussian's own axes (its columns) to the world's."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def quaternions(rotations: Tensor) -> Tensor:
    """(N, 3, 3) -> (N, 4) of length 1 with w >= 0. The largest of the four entries is found first, so nothing
    is divided by a small number (Shepperd, 1978)."""
    m = rotations.flatten(1).unbind(1)
    w, x = 1 + m[0] + m[4] + m[8], 1 + m[0] - m[4] - m[8]
    y, z = 1 - m[0] + m[4] - m[8], 1 - m[0] - m[4] + m[8]
    wx, wy, wz = m[7] - m[5], m[2] - m[6], m[3] - m[1]
    xy, xz, yz = m[1] + m[3], m[2] + m[6], m[5] + m[7]
    # Four times the products of all pairs of entries: each row is the quaternion times one entry.
    rows = [[w, wx, wy, wz], [wx, x, xy, xz], [wy, xy, y, yz], [wz, xz, yz, z]]
    products = torch.stack([torch.stack(row, 1) for row in rows], 1)
    largest = torch.stack([w, x, y, z], 1).argmax(1)
    q = products[torch.arange(len(products), device=products.device), largest]
    q = torch.nn.functional.normalize(q, dim=1)
    return torch.where(q[:, :1] < 0, -q, q)


def multiply(left: Tensor, right: Tensor) -> Tensor:
    """Hamilton's product (N, 4) x (N, 4) or of one with many: the rotation `right`, then `left`."""
    a, b, c, d = left.unbind(-1)
    w, x, y, z = right.unbind(-1)
    return torch.stack(
        [
            a * w - b * x - c * y - d * z,
            a * x + b * w + c * z - d * y,
            a * y - b * z + c * w + d * x,
            a * z + b * y - c * x + d * w,
        ],
        -1,
    )


def facing(normals: Tensor) -> Tensor:
    """(N, 3) of any length -> (N, 4): the shortest turns that take the third axis to them; none for a normal
    of length 0."""
    x, y, z = torch.nn.functional.normalize(normals, dim=1).unbind(1)
    # (1 + cos, axis sin): the half way; straight down a half turn around x.
    q = torch.stack([1 + z, -y, x, torch.zeros_like(z)], 1)
    down = torch.tensor([0.0, 1.0, 0.0, 0.0]).to(q)
    return torch.nn.functional.normalize(torch.where(z[:, None] > -1 + 1e-6, q, down), dim=1)


def spread(scales: Tensor, quats: Tensor, normal: Tensor) -> Tensor:
    """Where draws of the standard normal distribution (N, 3) lie around the means, world, metres: (N, 3) =
    R diag(s) normal. `scales` (N, 3) or (N, 2) are logarithms."""
    own = scales.exp() * normal[:, : scales.shape[1]]
    axes = rotation_matrices(quats)
    # Sums in a fixed order: a batched product may take another one with another number of threads.
    return sum((axes[:, :, k] * own[:, k, None] for k in range(1, own.shape[1])), axes[:, :, 0] * own[:, :1])


def covariances(scales: Tensor, quats: Tensor) -> Tensor:
    """(N, 3, 3) square metres of logarithms of deviations (N, 3) or (N, 2) and quaternions (N, 4)."""
    factor = rotation_matrices(quats)[:, :, : scales.shape[1]] * scales.exp()[:, None]
    return factor @ factor.mT


def from_covariances(matrices: Tensor, axes: int = 3, least: float = 1e-12) -> tuple[Tensor, Tensor]:
    """Scales (N, axes), logarithms, and quaternions (N, 4) of symmetric (N, 3, 3). The axes come from the
    widest to the narrowest, the third of a surfel is dropped. `least`: metres, for axes along which nothing
    is wide."""
    values, vectors = torch.linalg.eigh(matrices)
    values, vectors = values.flip(1), vectors.flip(2)
    # Three axes that eigh gives may be left-handed.
    third = torch.linalg.cross(vectors[:, :, 0], vectors[:, :, 1])
    turned = torch.cat([vectors[:, :, :2], third[:, :, None]], 2)
    return values[:, :axes].clamp(min=least * least).log() / 2, quaternions(turned)
