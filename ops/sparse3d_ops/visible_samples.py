"""Where rays see something in a sparse volume of densities: samples at a fixed step, without those in empty
voxels, those that are nearly transparent, and those that lie behind what is opaque. One schema here, one body
a device.

Voxel i covers [i, i + 1) in voxel units; its corner k = 4 dx + 2 dy + dz is the lattice point i + (dx, dy,
dz), and `corner_rows[voxel, k]` the row of that point's value. Within a voxel the values are interpolated,
and softplus of them is the density sigma, in 1 / (unit of t). Sample k of ray r lies at
t = near + (k + offset) * step and stands for a piece of length `step`.

Nothing here has a gradient: who trains a field asks where to look with this op, and computes densities and
colours there with ops that have one. Source: empty-space skipping and early termination as in Instant-NGP
(arXiv 2201.05989), section 5.4, with a voxel hash for the occupancy grid.
"""

import math

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_range, check_same_device, check_tensor
from sparse3d_ops.hashing import build, check_table, pack, unique, unpack

EXACT = (torch.float32, torch.float64)
SCRATCH = 1 << 24  # samples that are held at once before they are packed


def lattice(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """The corners of voxels, each once: (N, 4) int32 -> points (P, 4) int32 in order, rows (N, 8) int32."""
    check_tensor("coordinates", coordinates, ("N", 4), (torch.int32,))
    steps = torch.cartesian_prod(*[torch.arange(2, dtype=torch.int32)] * 3).to(coordinates.device)
    points = coordinates[:, None, :].repeat(1, 8, 1)
    points[..., 1:] += steps
    keys, inverse, _ = unique(pack(points.flatten(0, 1)))
    return unpack(keys), inverse.to(torch.int32).view(-1, 8)


@torch.library.custom_op("sparse3d::visible_samples", mutates_args=(), device_types="cpu")
def visible_samples(
    slot_keys: Tensor,
    slot_rows: Tensor,
    corner_rows: Tensor,
    values: Tensor,
    origins: Tensor,
    directions: Tensor,
    spans: Tensor,
    offsets: Tensor,
    low: list[float],
    voxel_size: float,
    step: float,
    min_alpha: float,
    stop: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """What each ray sees of a volume, front to back.

    slot_keys, slot_rows: the table (`hashing.build`) of the voxels, batch 0. corner_rows (V, 8) int32, values
    (P,), origins and directions (R, 3), spans (R, 2) near and far, offsets (R,) in [0, 1), all float32 or
    float64; `low` (x, y, z) is where voxel 0 begins, in the rays' unit.
    -> starts (R + 1,) int64; t (S,); voxel (S,) int32, row of the voxel. The samples of ray r are starts[r]
    to starts[r + 1]. A sample is left out where alpha = 1 - exp(-sigma step) < min_alpha, and where less than
    `stop` of the light passes all samples before it that were not left out. A ray with numbers that are not
    finite, or whose span is empty, sees nothing.
    """
    from sparse3d_ops.cpu import visible_samples as body

    rays = _checked(slot_keys, slot_rows, corner_rows, values, origins, directions, spans, offsets)
    numbers = _numbers(low, voxel_size, step, min_alpha, stop)
    most = _most(spans, step)
    table = slot_keys.numpy(), slot_rows.numpy(), corner_rows.contiguous().numpy(), rays[0].numpy()
    arrays = [ray.numpy() for ray in rays[1:]]
    count = len(origins)
    starts = np.zeros(count + 1, np.int64)
    found_t, found_voxel = [], []
    at_once = max(1, SCRATCH // most)
    for begin in range(0, count, at_once):
        end = min(begin + at_once, count)
        t = np.empty((end - begin, most), arrays[0].dtype)
        voxel = np.empty((end - begin, most), np.int32)
        counts = starts[begin + 1 : end + 1]
        origin, direction, span, offset = (array[begin:end] for array in arrays)
        body.walk(*table, origin, direction, span, offset, numbers, t, voxel, counts)
        offsets_here = np.cumsum(counts)
        packed_t = np.empty(offsets_here[-1], t.dtype)
        packed_voxel = np.empty(offsets_here[-1], np.int32)
        body.join(t, voxel, counts, offsets_here, packed_t, packed_voxel)
        found_t.append(packed_t)
        found_voxel.append(packed_voxel)
    np.cumsum(starts, out=starts)
    if not found_t:
        return torch.from_numpy(starts), origins.new_empty(0), corner_rows.new_empty(0)
    t, voxel = (np.concatenate(part) if len(part) > 1 else part[0] for part in (found_t, found_voxel))
    return torch.from_numpy(starts), torch.from_numpy(t), torch.from_numpy(voxel)


@visible_samples.register_kernel("cuda")
def _(
    slot_keys,
    slot_rows,
    corner_rows,
    values,
    origins,
    directions,
    spans,
    offsets,
    low,
    voxel_size,
    step,
    min_alpha,
    stop,
):
    from sparse3d_ops.gpu import visible_samples as body

    rays = _checked(slot_keys, slot_rows, corner_rows, values, origins, directions, spans, offsets)
    numbers = torch.from_numpy(_numbers(low, voxel_size, step, min_alpha, stop)).to(rays[0])
    _most(spans, step)
    table = slot_keys.contiguous(), slot_rows.contiguous(), corner_rows.contiguous()
    starts = torch.zeros(len(origins) + 1, dtype=torch.int64, device=origins.device)
    body.count(*table, *rays, numbers, starts[1:])
    torch.cumsum(starts[1:].clone(), 0, out=starts[1:])
    total = int(starts[-1])
    t, voxel = rays[0].new_empty(total), corner_rows.new_empty(total)
    body.fill(*table, *rays, numbers, starts, t, voxel)
    return starts, t, voxel


@visible_samples.register_fake
def _(
    slot_keys,
    slot_rows,
    corner_rows,
    values,
    origins,
    directions,
    spans,
    offsets,
    low,
    voxel_size,
    step,
    min_alpha,
    stop,
):
    count = torch.library.get_ctx().new_dynamic_size()
    starts = origins.new_empty(origins.shape[0] + 1, dtype=torch.int64)
    return starts, origins.new_empty(count), corner_rows.new_empty(count)


def voxel_table(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """The table of voxels that `visible_samples` reads: (N, 4) int32 -> slot_keys, slot_rows."""
    return build(pack(coordinates))


def _checked(slot_keys, slot_rows, corner_rows, values, origins, directions, spans, offsets) -> list[Tensor]:
    """Checks; values, origins, directions, spans and offsets as the bodies take them."""
    check_tensor("corner_rows", corner_rows, ("V", 8), (torch.int32,))
    check_tensor("values", values, ("P",), EXACT)
    check_table(slot_keys, slot_rows, len(corner_rows))
    check_tensor("origins", origins, ("R", 3), (values.dtype,))
    rays = origins.shape[0]
    check_tensor("directions", directions, (rays, 3), (values.dtype,))
    check_tensor("spans", spans, (rays, 2), (values.dtype,))
    check_tensor("offsets", offsets, (rays,), (values.dtype,))
    named = {"slot_keys": slot_keys, "corner_rows": corner_rows, "values": values, "origins": origins}
    check_same_device(*named.items(), ("directions", directions), ("spans", spans), ("offsets", offsets))
    check_range("corner_rows", corner_rows, 0, len(values))
    return [tensor.detach().contiguous() for tensor in (values, origins, directions, spans, offsets)]


def _numbers(low: list[float], voxel_size: float, step: float, min_alpha: float, stop: float) -> np.ndarray:
    """(7,) float64: low (3), voxel size, step, the optical depth of `min_alpha`, stop."""
    if len(low) != 3 or not all(map(math.isfinite, low)):
        raise ValueError(f"low is {low}, expected three finite numbers (x, y, z)")
    if not 0 < voxel_size < math.inf or not 0 < step < math.inf:
        raise ValueError(f"voxel_size is {voxel_size} and step {step}, expected positive lengths")
    if not 0 <= min_alpha < 1 or not 0 <= stop < 1:
        raise ValueError(f"min_alpha is {min_alpha} and stop {stop}, expected fractions in [0, 1)")
    return np.array([*low, voxel_size, step, -math.log1p(-min_alpha), stop])


def _most(spans: Tensor, step: float) -> int:
    """The most samples that a ray of these spans can have."""
    longest = float((spans[:, 1] - spans[:, 0]).nan_to_num(0.0, 0.0, 0.0).max()) if len(spans) else 0.0
    most = max(longest, 0.0) / step + 2
    if most > SCRATCH:
        raise ValueError(
            f"a span of {longest:g} holds {most:.2g} steps of {step:g}, at most {SCRATCH} are handled; "
            "clip near and far to the volume"
        )
    return int(most)
