"""Clouds in another frame, of another size, together with others, and cut out of a box.

A cloud that is moved looks from the moved camera as it looked before: the coefficients of its colours turn
with it. The harmonics of one degree l go over into each other under a rotation R, by a matrix D_l with
Y_l(R d) D_l = Y_l(d) for all directions d; it is found exactly (to rounding) from more directions than it has
columns.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.shapes import multiply, quaternions
from sparse3d.geometry.rigid import is_rigid
from sparse3d_ops.spherical_harmonics import sh_basis


def sh_rotation(rotation: Tensor, degree: int) -> Tensor:
    """(3, 3) -> (K, K) float64, K = (degree + 1)^2, block by block: coefficients c of colours become D c in
    the turned frame. Degrees 0 to 4."""
    rotation = rotation.double().cpu()
    # Points spread evenly over the sphere: three for each column of the largest block.
    number = torch.arange(32, dtype=torch.float64) + 0.5
    height, angle = 1 - number / 16, number * (torch.pi * (3 - 5**0.5))
    ring = (1 - height.square()).sqrt()
    directions = torch.stack([ring * angle.cos(), ring * angle.sin(), height], 1)
    before, after = sh_basis(directions, degree), sh_basis(directions @ rotation.T, degree)
    matrix = torch.zeros(before.shape[1], before.shape[1], dtype=torch.float64)
    for l in range(degree + 1):
        block = slice(l * l, (l + 1) ** 2)
        matrix[block, block] = torch.linalg.lstsq(after[:, block], before[:, block]).solution
    return matrix


def transform(cloud: GaussianCloud, b_from_a: np.ndarray, scale: float = 1.0) -> GaussianCloud:
    """The cloud of frame a in frame b: x_b = R (scale x_a) + t with R and t of the rigid `b_from_a` (4, 4).

    ValueError for a matrix that is no rigid motion (a reflection would need mirrored harmonics) and for a
    scale that is not above 0.
    """
    b_from_a = np.asarray(b_from_a, dtype=np.float64)
    if b_from_a.shape != (4, 4) or not is_rigid(b_from_a):
        raise ValueError("b_from_a must be a rigid motion (4, 4): a rotation, a translation, 0 0 0 1")
    if not (scale > 0 and np.isfinite(scale)):
        raise ValueError(f"scale must be finite and above 0, got {scale}")
    rotation = torch.from_numpy(b_from_a[:3, :3].copy())
    like = {"dtype": cloud.means.dtype, "device": cloud.means.device}
    offset = torch.from_numpy(b_from_a[:3, 3].copy()).to(cloud.means.device)
    # In double: positions in a city's frame lose centimetres in single precision.
    means = (scale * cloud.means.double()) @ rotation.T.to(cloud.means.device) + offset
    turn = quaternions(rotation[None])[0].to(**like)
    entries = sh_rotation(rotation, cloud.sh_degree)[1:, 1:].to(**like)
    return GaussianCloud(
        means.to(cloud.means.dtype),
        cloud.scales + float(np.log(scale)),
        multiply(turn, cloud.quats),
        cloud.opacities.clone(),
        cloud.sh0.clone(),
        torch.einsum("kj,njc->nkc", entries, cloud.shN),
    )


def with_sh_degree(cloud: GaussianCloud, degree: int) -> GaussianCloud:
    """The cloud with coefficients up to `degree`: those beyond are dropped, those that lack are 0."""
    entries = (degree + 1) ** 2 - 1
    kept = cloud.shN[:, :entries]
    more = kept.new_zeros(len(kept), entries - kept.shape[1], 3)
    return GaussianCloud.of(cloud.parameters() | {"shN": torch.cat([kept, more], 1)})


def merge(clouds: Sequence[GaussianCloud]) -> GaussianCloud:
    """All Gaussians of several clouds, in their order, with the highest of their degrees. ValueError for no
    cloud, and for surfels together with Gaussians."""
    if not clouds:
        raise ValueError("no cloud to merge")
    if len({cloud.surfels for cloud in clouds}) > 1:
        raise ValueError("surfels and Gaussians do not go into one cloud")
    degree = max(cloud.sh_degree for cloud in clouds)
    parts = [with_sh_degree(cloud, degree).parameters() for cloud in clouds]
    return GaussianCloud.of({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def inside_box(
    means: Tensor, low: Sequence[float], high: Sequence[float], world_from_box: np.ndarray | None = None
) -> Tensor:
    """(N,) bool: low <= mean < high on each axis, of the box's own frame where it has one."""
    points = means.double()
    if world_from_box is not None:
        pose = torch.as_tensor(world_from_box, dtype=torch.float64, device=means.device)
        points = (points - pose[:3, 3]) @ pose[:3, :3]
    ends = torch.tensor([list(low), list(high)], dtype=torch.float64, device=means.device)
    return ((points >= ends[0]) & (points < ends[1])).all(1)


def crop(
    cloud: GaussianCloud,
    low: Sequence[float],
    high: Sequence[float],
    world_from_box: np.ndarray | None = None,
) -> GaussianCloud:
    """The Gaussians whose means lie in a box (`inside_box`); for a mask: `cloud[mask]`."""
    return cloud[inside_box(cloud.means, low, high, world_from_box)]
