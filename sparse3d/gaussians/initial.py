"""The first Gaussians of a scene: from points, depth maps, a radiance field, a mesh, or at random.

Each is as wide as it is far from its neighbours (the mean distance of the three nearest, Kerbl et al., arXiv
2308.04079), so that they cover what they were made from without a gap; colours are those of all directions.
Everything follows from the seed and is the same bits for any number of threads.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from sparse3d.gaussians.cloud import MAX_SH_DEGREE, SH0, GaussianCloud
from sparse3d.gaussians.shapes import facing
from sparse3d.gaussians.strategies.relocation import draw
from sparse3d.gaussians.voxel_index import VoxelIndex
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.rays import pixel_centres
from sparse3d.nn.threads import one_torch_thread
from sparse3d_ops.segment import segment_mean

_FLATNESS = 0.1  # of a Gaussian that lies in a surface: thickness in widths
_NEIGHBOURS = 3
_IN_PLANE = 8  # neighbours that a normal is found from
_AT_ONCE = 1 << 18  # points at which a field is asked

Field = Callable[[Tensor], Tensor]


def from_points(
    positions: Tensor,
    colors: Tensor,
    *,
    sh_degree: int = 3,
    opacity: float = 0.1,
    scale: float = 1.0,
    normals: Tensor | None = None,
    flat: bool = False,
    surfels: bool = False,
) -> GaussianCloud:
    """Points (P, 3) metres with colours (P, 3) in [0, 1], of structure from motion or of a LiDAR.

    `scale` widens all. Points at the same place become one, of their mean colour; points that are not finite
    are left out; a single point is 1 cm wide. Round ones where nothing is said; `normals` (P, 3) lay them
    flat, and `flat` does with normals of the planes through their neighbours (GS-LIVO, arXiv 2501.08672).
    Surfels are flat always. ValueError for colours that are not one for each point.
    """
    if positions.shape != colors.shape or positions.dim() != 2 or positions.shape[1] != 3:
        raise ValueError(
            f"positions and colors have shapes {tuple(positions.shape)} and {tuple(colors.shape)}, expected "
            "(P, 3) both"
        )
    with one_torch_thread():
        finite = torch.isfinite(positions).all(1)
        positions, rows = _distinct(positions[finite])
        colors = _mean_of(colors[finite].to(positions), rows, len(positions))
        if normals is not None:
            normals = _mean_of(normals[finite].to(positions), rows, len(positions))
        width, _ = spacing(positions)
        if normals is None and (flat or surfels):
            normals = plane_normals(positions)
        return _cloud(positions, colors, width * scale, normals, surfels, sh_degree, opacity)


def spacing(positions: Tensor, neighbours: int = _NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """Mean distance (P,) of each point (P, 3) from its nearest others, and their rows (P, neighbours), -1
    where there are too few. A point alone gets 1 cm."""
    index = VoxelIndex(positions, guessed_voxel(positions))
    rows, distances = index.nearest(positions, neighbours + 1)
    # A point is its own nearest neighbour, but for those of the same place with a lower row.
    own = rows == torch.arange(len(rows), device=rows.device)[:, None]
    own[:, -1] |= ~own.any(1)
    rows, distances = rows[~own].view(-1, neighbours), distances[~own].view(-1, neighbours)
    known = torch.isfinite(distances)
    mean = distances.where(known, 0.0).sum(1) / known.sum(1).clamp(min=1)
    return torch.where(known.any(1) & (mean > 0), mean, 0.01).to(positions.dtype), rows


def guessed_voxel(positions: Tensor) -> float:
    """A side for voxels that hold a few points each, if these lie on surfaces: metres."""
    if len(positions) < 2:
        return 1.0
    low, high = torch.aminmax(positions.double(), dim=0)
    extent = (high - low).sort().values
    side = float((extent[2] * extent[1].clamp(min=extent[2] * 1e-3) / len(positions)).sqrt())
    return max(2 * side, float(extent[2]) * 1e-5, 1e-9)


def plane_normals(positions: Tensor) -> Tensor:
    """(P, 3) unit normals, of either sign, of the planes through each point's nearest neighbours; z where
    there is no plane."""
    _, rows = spacing(positions, _IN_PLANE)
    known = (rows >= 0)[:, :, None]
    off = (positions[rows] - positions[:, None]).double().where(known, 0.0)
    matrices = off.mT @ off
    if not len(positions):
        return positions
    _, vectors = torch.linalg.eigh(matrices)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, device=positions.device)
    return torch.where((rows[:, :1] >= 0), vectors[:, :, 0], up).to(positions.dtype)


def from_depth(
    camera: Camera,
    depth: np.ndarray,
    rgb: np.ndarray,
    *,
    stride: int = 1,
    sh_degree: int = 3,
    opacity: float = 0.1,
    scale: float = 1.0,
    surfels: bool = False,
) -> GaussianCloud:
    """A depth map (H, W), metres along the optical axis, with its photo (H, W, 3) in [0, 1]: a Gaussian for
    each pixel of a grid of `stride` whose depth is known (finite, above 0), as wide as the grid there.
    Surfels face the camera. ValueError for pictures of another size than the camera's."""
    shape = (camera.height, camera.width)
    if depth.shape != shape or rgb.shape != (*shape, 3):
        raise ValueError(f"depth {depth.shape} and photo {rgb.shape}, expected {shape} and {(*shape, 3)}")
    if stride < 1:
        raise ValueError(f"stride must be at least 1 pixel, got {stride}")
    chosen = np.zeros(shape, dtype=bool)
    chosen[stride // 2 :: stride, stride // 2 :: stride] = True
    with np.errstate(invalid="ignore"):
        chosen &= np.isfinite(depth) & (depth > 0)
    rays = camera.unproject(pixel_centres(camera.width, camera.height)[chosen.ravel()])
    seen = np.isfinite(rays).all(1) & (rays[:, 2] > 0)
    far = depth[chosen].astype(np.float64)[seen]
    local = rays[seen] * (far / rays[seen][:, 2])[:, None]
    pose = camera.camera_to_world
    means = torch.from_numpy(local @ pose[:3, :3].T + pose[:3, 3]).float()
    colors = torch.from_numpy(np.asarray(rgb[chosen][seen], dtype=np.float32))
    width = torch.from_numpy(far * stride / math.sqrt(camera.fx * camera.fy)).float()
    toward = torch.from_numpy(-rays[seen] @ pose[:3, :3].T).float() if surfels else None
    with one_torch_thread():
        return _cloud(means, colors, width * scale, toward, surfels, sh_degree, opacity)


def from_mesh(
    mesh: Mesh,
    count: int,
    *,
    seed: int = 0,
    sh_degree: int = 3,
    opacity: float = 0.9,
    scale: float = 1.0,
    surfels: bool = False,
) -> GaussianCloud:
    """`count` Gaussians spread evenly over a mesh by its area, flat along it, with the colours of its
    vertices (grey where it has none). ValueError for a mesh without area."""
    face, weights = mesh.spread_points(count, seed)
    weights, corners = weights[:, :, None], mesh.faces[face]
    means = torch.from_numpy((weights * mesh.vertices[corners]).sum(1)).float()
    if mesh.colors is None:
        colors = torch.full((count, 3), 0.5)
    else:
        colors = torch.from_numpy((weights * (mesh.colors[corners] / 255.0)).sum(1)).float()
    # As wide as a square of its share of the area: what neighbours do not tell of two sides of a thin wall.
    width = torch.full((count,), math.sqrt(mesh.area / max(count, 1)))
    normals = torch.from_numpy(mesh.face_normals[face])
    normals = (normals / normals.norm(dim=1, keepdim=True)).float()
    with one_torch_thread():
        return _cloud(means, colors, width * scale, normals, surfels, sh_degree, opacity)


def from_field(
    density: Field,
    low: Sequence[float],
    high: Sequence[float],
    count: int,
    *,
    color: Field | None = None,
    resolution: int = 64,
    seed: int = 0,
    sh_degree: int = 3,
    opacity: float = 0.1,
    scale: float = 1.0,
    surfels: bool = False,
) -> GaussianCloud:
    """`count` Gaussians where a radiance field is dense and can be seen: `density` of points (N, 3) -> (N,)
    in 1 / metre, within a box. `color`: of points (N, 3) -> (N, 3) in [0, 1], grey where there is none.

    Cells of which `resolution` span the longest side are drawn by how opaque they are times how clear the
    clearest of the six around them is, so what lies deep within gets none; places are even within a cell.
    ValueError for a field that is empty.
    """
    ends = torch.tensor([list(low), list(high)], dtype=torch.float64)
    side = float((ends[1] - ends[0]).max()) / resolution
    shape = ((ends[1] - ends[0]) / side).round().clamp(min=1).long().tolist()
    with one_torch_thread():
        axes = [torch.arange(n, dtype=torch.float64) + 0.5 for n in shape]
        cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).view(-1, 3)
        found = [density((ends[0] + part * side).float()).detach().cpu() for part in cells.split(_AT_ONCE)]
        opaque = -torch.expm1(-torch.cat(found).double().clamp(min=0) * side)
        weights = (opaque * _clearest_beside(opaque.view(shape)).flatten()).nan_to_num(0.0)
        if not bool((weights > 0).any()):
            raise ValueError("the field is empty in this box: nothing to place Gaussians on")
        random = torch.Generator().manual_seed(seed)
        rows = draw(weights, count, random)
        off = torch.rand(count, 3, generator=random, dtype=torch.float64) - 0.5
        means = (ends[0] + (cells[rows] + off) * side).float()
        if color is None:
            colors = torch.full((count, 3), 0.5)
        else:
            colors = torch.cat([color(part).detach().cpu().float() for part in means.split(_AT_ONCE)])
        return from_points(means, colors, sh_degree=sh_degree, opacity=opacity, scale=scale, surfels=surfels)


def random_in_box(
    box: Tensor,
    count: int,
    *,
    sh_degree: int = 3,
    opacity: float = 0.1,
    scale: float = 1.0,
    seed: int = 0,
    surfels: bool = False,
) -> GaussianCloud:
    """`count` Gaussians of random places and colours in a box (2, 3), lowest and highest corner, metres; as
    wide as they are apart on average: 0.55 count^(-1/3) of its sides."""
    random = torch.Generator().manual_seed(seed)
    box = box.float()
    means = box[0] + (box[1] - box[0]) * torch.rand(count, 3, generator=random)
    colors = torch.full((count, 3), 0.5)
    sides = (box[1] - box[0]).double().prod()
    # Mean distance to the nearest neighbour of random points of density n: Gamma(4/3) (4 pi n / 3)^(-1/3).
    width = torch.full((count,), 0.55 * float((sides / max(count, 1)) ** (1 / 3)))
    normals = torch.randn(count, 3, generator=random) if surfels else None
    with one_torch_thread():
        return _cloud(means, colors, width * scale, normals, surfels, sh_degree, opacity)


def _cloud(
    means: Tensor,
    colors: Tensor,
    width: Tensor,
    normals: Tensor | None,
    surfels: bool,
    sh_degree: int,
    opacity: float,
) -> GaussianCloud:
    if not 0 <= sh_degree <= MAX_SH_DEGREE or not 0 < opacity < 1:
        raise ValueError(
            f"sh_degree must be 0 to {MAX_SH_DEGREE} and opacity in (0, 1), got {sh_degree} and {opacity}"
        )
    count = len(means)
    scales = width.to(means).log()[:, None].repeat(1, 2 if surfels else 3)
    quats = means.new_zeros(count, 4)
    quats[:, 0] = 1
    if normals is not None:
        quats = facing(normals.to(means))
        if not surfels:
            scales[:, 2] += math.log(_FLATNESS)
    return GaussianCloud(
        means,
        scales,
        quats,
        means.new_full((count,), math.log(opacity / (1 - opacity))),
        ((colors.to(means) - 0.5) / SH0)[:, None],
        means.new_zeros(count, (sh_degree + 1) ** 2 - 1, 3),
    )


def _distinct(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Each place once, in the order in which they came, and the row (P,) of each point's."""
    _, rows = torch.unique(positions, dim=0, return_inverse=True)
    first = torch.full((int(rows.max()) + 1 if len(rows) else 0,), len(rows), device=rows.device)
    numbers = torch.arange(len(rows), device=rows.device)
    first = first.scatter_reduce(0, rows, numbers, "amin")
    order = first.argsort()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return positions[first[order]], rank[rows]


def _mean_of(values: Tensor, rows: Tensor, count: int) -> Tensor:
    return segment_mean(values, rows, count) if len(values) else values


def _clearest_beside(opaque: Tensor) -> Tensor:
    """(X, Y, Z) -> what gets through the clearest of the six cells around; nothing stands outside."""
    padded = torch.nn.functional.pad(opaque, (1, 1, 1, 1, 1, 1))
    least = torch.ones_like(opaque)
    x, y, z = opaque.shape
    for a, b, c in ((0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2)):
        least = torch.minimum(least, padded[a : a + x, b : b + y, c : c + z])
    return 1 - least
