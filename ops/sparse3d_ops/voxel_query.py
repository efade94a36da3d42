"""Which voxels lie near a position: the grouping of voxel RoI pooling, by looking up the indices around it
instead of measuring the way to every voxel. One schema here, one body a device.

Positions are (Q, 3) in voxel units: voxel i has its centre at i + 0.5. A voxel is near a position when its
index differs by at most `reach` along each axis from that of the voxel which holds the position, and its
centre lies less than `radius` away. Nearer ones come first, by the Manhattan distance of the indices; of
equal ones the lowest (x, y, z). Source: Voxel R-CNN (arXiv 2012.15712), section 3.3.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import INDICES, check_range, check_same_device, check_tensor
from sparse3d_ops.hashing import BATCH_LIMIT, check_table

EXACT = (torch.float32, torch.float64)
REACH_LIMIT = 32  # 65^3 look-ups a position; more is a mistake


@torch.library.custom_op("sparse3d::voxel_query", mutates_args=(), device_types="cpu")
def voxel_query(
    slot_keys: Tensor,
    slot_rows: Tensor,
    positions: Tensor,
    position_batch: Tensor,
    voxel_size: list[float],
    reach: list[int],
    radius: float,
    samples: int,
) -> Tensor:
    """Rows of at most `samples` voxels near each position, from a table of `hashing.build`.

    (Q, 3) float32 or float64 in voxel units, (Q,) int32 or int64; `voxel_size` (x, y, z) and `radius` in
    metres -> (Q, samples) int32, -1 in the places that are left over at the end. Positions that are not
    finite have no voxels. Distances are computed in float64.
    """
    from sparse3d_ops.cpu import voxel_query as body

    geometry = _checked(slot_keys, slot_rows, positions, position_batch, voxel_size, reach, radius, samples)
    offsets = _offsets(tuple(voxel_size), tuple(reach), radius)
    rows = torch.empty(len(positions), samples, dtype=torch.int32)
    body.voxel_query(
        slot_keys.numpy(),
        slot_rows.numpy(),
        positions.detach().double().contiguous().numpy(),
        position_batch.contiguous().numpy(),
        offsets,
        geometry,
        rows.numpy(),
    )
    return rows


@voxel_query.register_kernel("cuda")
def _(slot_keys, slot_rows, positions, position_batch, voxel_size, reach, radius, samples):
    from sparse3d_ops.gpu import voxel_query as body

    geometry = _checked(slot_keys, slot_rows, positions, position_batch, voxel_size, reach, radius, samples)
    offsets = _offsets(tuple(voxel_size), tuple(reach), radius)
    rows = slot_rows.new_empty(len(positions), samples)
    body.voxel_query(
        slot_keys.contiguous(),
        slot_rows.contiguous(),
        positions.detach().double().contiguous(),
        position_batch.contiguous(),
        torch.from_numpy(offsets).to(positions.device),
        torch.from_numpy(geometry).to(positions.device),
        rows,
    )
    return rows


@voxel_query.register_fake
def _(slot_keys, slot_rows, positions, position_batch, voxel_size, reach, radius, samples):
    return slot_rows.new_empty(positions.shape[0], samples)


def _checked(
    slot_keys, slot_rows, positions, position_batch, voxel_size, reach, radius, samples
) -> np.ndarray:
    """Checks; the voxel's size along x, y, z and the square of the radius, float64 (4,)."""
    check_table(slot_keys, slot_rows)
    check_tensor("positions", positions, ("Q", 3), EXACT)
    check_tensor("position_batch", position_batch, (positions.shape[0],), INDICES)
    check_same_device(("slot_keys", slot_keys), ("positions", positions), ("position_batch", position_batch))
    check_range("position_batch", position_batch, 0, BATCH_LIMIT)
    if len(voxel_size) != 3 or not all(0 < size < math.inf for size in voxel_size):
        raise ValueError(f"voxel_size is {voxel_size}, expected three positive lengths (x, y, z)")
    if len(reach) != 3 or not all(0 <= n <= REACH_LIMIT for n in reach):
        raise ValueError(f"reach is {reach}, expected three integers in [0, {REACH_LIMIT}] (x, y, z)")
    if not 0 < radius < math.inf or samples < 1:
        raise ValueError(f"radius is {radius} and samples {samples}, expected a length and at least 1")
    return np.array([*voxel_size, radius * radius])


@functools.lru_cache(maxsize=64)
def _offsets(voxel_size: tuple[float, ...], reach: tuple[int, ...], radius: float) -> np.ndarray:
    """(V, 3) int64 in the order of the look-ups, without those that are too far from every position.

    A position lies anywhere within its voxel, so a centre n voxels away is at least n - 1/2 away.
    """
    axes = [np.arange(-n, n + 1) for n in reach]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    nearest = np.maximum(np.abs(offsets) - 0.5, 0) * np.array(voxel_size)
    # Left in with room for rounding: the bodies measure the distance itself.
    offsets = offsets[(nearest**2).sum(1) < radius * radius * (1 + 1e-6)]
    return offsets[np.argsort(np.abs(offsets).sum(1), kind="stable")]
