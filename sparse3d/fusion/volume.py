"""A truncated signed distance field of what depth maps and LiDAR sweeps saw, on the voxel hash.

Only blocks near a measured surface are kept (Niessner et al., ACM TOG 2013); what is averaged in them, and
how, says `sparse3d_ops.tsdf`. Lattice point i lies at i * voxel_size in the world, float32 from float64: far
from the origin vertices lose digits, so shift a world of many kilometres.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d.fusion.blocks import SIDE, Blocks
from sparse3d.fusion.extraction import LEAST, Cache, as_mesh, extract, join, named
from sparse3d.fusion.streaming import StreamedBlocks
from sparse3d.geometry.mesh import Mesh
from sparse3d_ops import hashing
from sparse3d_ops.tsdf import integrate_depth, integrate_rays
from sparse3d_ops.tsdf_blocks import depth_blocks, free_blocks, ray_blocks
from sparse3d_ops.tsdf_cast import cast_field

Array = np.ndarray | Tensor
FAR = 1e6  # metres: further than any measurement, yet finite


class RayCast(NamedTuple):
    """What a camera sees of the surface: `depth` (H, W) float32 metres along the optical axis, NaN where
    nothing; `normals` (H, W, 3) float32 in the world, to the outside; `color` (H, W, 3) uint8 or None. Zeros
    where nothing is seen."""

    depth: np.ndarray
    normals: np.ndarray
    color: np.ndarray | None


class TSDFVolume:
    """Depth and colour, averaged.

    voxel_size: metres. truncation: metres before and behind a surface that are kept, default 4 voxels; less
    than 2 makes holes, and it should exceed the depth's noise. max_weight: from there on old frames are
    forgotten as new ones come. min_depth, max_depth: metres, what lies outside does not count. With
    `max_blocks` at most so many blocks are in memory, and the others wait in `folder` until `close`.

    Raises ValueError for sizes that make no sense and for blocks that need more memory than there is.
    """

    def __init__(
        self,
        voxel_size: float,
        truncation: float | None = None,
        colors: bool = True,
        max_weight: float = math.inf,
        min_depth: float = 0.0,
        max_depth: float = FAR,
        max_blocks: int | None = None,
        folder: str | Path | None = None,
        device: torch.device | str = "cpu",
    ):
        if not 0 < voxel_size < math.inf:
            raise ValueError(f"voxel_size is {voxel_size}, expected metres above 0")
        truncation = 4 * voxel_size if truncation is None else truncation
        if not 0 < truncation < math.inf:
            raise ValueError(f"truncation is {truncation}, expected metres above 0")
        if (max_blocks is None) != (folder is None):
            raise ValueError("max_blocks and folder go together: so many blocks in memory, the others there")
        self.voxel_size, self.truncation = float(voxel_size), float(truncation)
        self.max_weight, self.limits = float(max_weight), (float(min_depth), float(max_depth))
        self.device = torch.device(device)
        self.blocks = (
            Blocks(colors, self.device)
            if max_blocks is None or folder is None
            else StreamedBlocks(colors, max_blocks, folder, self.device)
        )
        self._cache = Cache(self.blocks, 0.0)

    @property
    def colors(self) -> bool:
        return self.blocks.has_colors

    def integrate(
        self,
        depth: Array,
        intrinsics: Array | Sequence[float],
        camera_to_world: Array,
        color: Array | None = None,
        weights: Array | None = None,
    ) -> None:
        """Take a depth map (H, W) in metres along the optical axis: 0, negative, NaN and what is not within
        min_depth and max_depth is none. intrinsics (4,): fx, fy, cx, cy in pixels, centres at +0.5;
        camera_to_world (4, 4). color (H, W, 3) uint8, seen by the same camera; weights (H, W), 1 without
        them.

        Where a volume with colours gets none with a frame, it keeps what it has.
        """
        depth = self._tensor(depth, torch.float32)
        pose = _pose(camera_to_world)
        numbers = [float(value) for value in np.asarray(intrinsics).ravel()]
        field = self.voxel_size, self.truncation, *self.limits
        keys = depth_blocks(depth, numbers, pose, self.voxel_size, SIDE, self.truncation, *self.limits)
        blocks, rows = self.blocks, self.blocks.take(keys)
        picture = None if color is None else self._tensor(color, torch.uint8)
        shares = None if weights is None else self._tensor(weights, torch.float32)
        arrays = blocks.values, blocks.weights, blocks.colors, rows, hashing.unpack(keys)
        integrate_depth(*arrays, depth, picture, shares, numbers, pose, *field, self.max_weight)
        blocks.changed[rows] = True

    def integrate_rays(
        self,
        points: Array,
        origin: Array | Sequence[float],
        colors: Array | None = None,
        weight: float = 1.0,
        carving: float = 0.0,
    ) -> None:
        """Take a LiDAR sweep: points (N, 3) in the world and where they were seen from (3,). Points that are
        not finite are none. colors (N, 3) uint8.

        With `carving`, rays that pass through what is inside of the surface so far tell, with that weight,
        that it is gone: what moved on leaves no ghost. Of blocks that wait in a folder, and of more than fit
        beside those that the sweep measures, nothing is carved.
        """
        points = self._tensor(points, torch.float64)
        place = [float(value) for value in np.asarray(origin).ravel()]
        tints = None if colors is None else self._tensor(colors, torch.uint8)
        reach, blocks = (self.voxel_size, SIDE, self.truncation, *self.limits), self.blocks
        measured = ray_blocks(points, place, *reach)
        keys, pairs = measured[0], (*measured[1:], torch.zeros_like(measured[1]), measured[2][:0])
        if carving > 0:
            passed = free_blocks(points, place, *blocks.table, *reach)
            others = passed[0][~torch.isin(passed[0], keys)]
            keys = torch.cat([keys, others[: max(blocks.at_once - len(keys), 0)]]).sort().values
            pairs = *_pairs_of(keys, *measured), *_pairs_of(keys, *passed)
        rows = blocks.take(keys)
        arrays = blocks.values, blocks.weights, blocks.colors, rows, hashing.unpack(keys), *pairs
        field = place, self.voxel_size, self.truncation, *self.limits, weight, self.max_weight, carving or 1.0
        integrate_rays(*arrays, points, tints, *field)
        blocks.changed[rows] = True

    def mesh(self, min_weight: float = 0.0) -> Mesh:
        """The surface of all there is, with what was seen with a weight of at least `min_weight`. Vertices
        and faces have one order, whatever order frames came in; blocks that wait in the folder are brought
        back part by part."""
        keys, at_once = self.blocks.all_keys, self.blocks.at_once
        if len(keys) <= at_once:
            return as_mesh(extract(self.blocks, keys, min_weight), self.voxel_size)
        # A block needs up to seven others.
        parts = keys.split(at_once // 8)
        surface = join((named(extract(self.blocks, part, min_weight)) for part in parts), keys)
        return as_mesh(surface, self.voxel_size)

    def ray_cast(
        self,
        intrinsics: Array | Sequence[float],
        camera_to_world: Array,
        size: tuple[int, int],
        near: float = 0.0,
        far: float | None = None,
        min_weight: float = 0.0,
    ) -> RayCast:
        """What a camera sees: intrinsics (4,) fx, fy, cx, cy, pose (4, 4), size (width, height); near and far
        in metres, far to the end of the volume by default. With a folder, the blocks that the camera can see
        must fit into max_blocks."""
        pose = _pose(camera_to_world)
        numbers = [float(value) for value in np.asarray(intrinsics).ravel()]
        blocks, far = self.blocks, math.inf if far is None else far
        if not math.isfinite(far) or isinstance(blocks, StreamedBlocks):
            keys, far = self._in_view(numbers, pose, size, far)
            blocks.take(keys, create=False)
        depth, normals, color = cast_field(
            *blocks.table, blocks.values, blocks.weights, blocks.colors, hashing.unpack(blocks.keys), numbers,
            pose, *size, self.voxel_size, min(near, far), far, max(min_weight, LEAST),
        )  # fmt: skip
        tints = color.round_().clamp_(0, 255).to(torch.uint8).cpu().numpy() if self.colors else None
        depth = depth.masked_fill_(depth == 0, math.nan)
        return RayCast(depth.cpu().numpy(), normals.cpu().numpy(), tints)

    def _in_view(
        self, intrinsics: list[float], pose: Tensor, size: tuple[int, int], far: float
    ) -> tuple[Tensor, float]:
        """The keys of the blocks that reach into a camera's view up to z = far, and the far end of them."""
        keys = self.blocks.all_keys
        side = SIDE * self.voxel_size
        centres = (hashing.unpack(keys)[:, 1:].double().cpu() + 0.5) * side
        x, y, z = ((centres - pose[:3, 3]) @ pose[:3, :3]).T
        fx, fy, cx, cy = intrinsics
        radius = side * math.sqrt(3) / 2
        seen = (z > -radius) & (z < far + radius)
        # A sphere lies outside of a plane through the camera if its centre is a radius away from it.
        for across, focal, low, high in ((x, fx, cx, size[0] - cx), (y, fy, cy, size[1] - cy)):
            seen &= (focal * across + low * z) > -radius * math.hypot(focal, low)
            seen &= (high * z - focal * across) > -radius * math.hypot(focal, high)
        reach = float(z[seen].max()) + radius if bool(seen.any()) else 0.0
        return keys[seen.to(keys.device)], min(max(reach, 0.0), far)

    def changed_mesh(self, min_weight: float = 0.0) -> Mesh:
        """The surface that `mesh` gives, its faces in another order; only blocks that changed since the last
        call, and those beside them, are looked at. A mesh that grows while frames come in costs less so."""
        if self._cache.min_weight != min_weight:
            self._cache = Cache(self.blocks, min_weight)
        return as_mesh(self._cache.update(self.blocks), self.voxel_size)

    def close(self) -> None:
        """Remove the files of blocks that wait; these are lost, and the volume is of no more use."""
        self.blocks.close()

    def _tensor(self, array: Array, dtype: torch.dtype) -> Tensor:
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            array = array.copy()  # torch warns of memory that it must not write to
        tensor = torch.as_tensor(array)
        if (dtype == torch.uint8) != (tensor.dtype == torch.uint8):
            raise ValueError(
                f"got {str(tensor.dtype).removeprefix('torch.')}; colours are uint8, all else numbers"
            )
        return tensor.to(self.device, dtype)


def _pairs_of(keys: Tensor, found: Tensor, starts: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """starts (M + 1,) and rays of the blocks `keys` (M,), sorted, from those of `found`, sorted too."""
    place = torch.searchsorted(found, keys).clamp(max=max(len(found) - 1, 0))
    known = found[place] == keys if len(found) else torch.zeros_like(keys, dtype=torch.bool)
    sizes = torch.zeros_like(keys)
    sizes[known] = starts.diff()[place[known]]
    if int(known.sum()) < len(found):  # rays of blocks that are not wanted
        rays = rays[torch.isin(found, keys).repeat_interleave(starts.diff())]
    return torch.cat([starts[:1], sizes.cumsum(0)]), rays


def _pose(matrix: Array) -> Tensor:
    array = matrix.detach().cpu().numpy() if isinstance(matrix, Tensor) else matrix
    return torch.from_numpy(np.array(array, dtype=np.float64))
