"""How large a thing is whose photos have an opacity: the cube around its visual hull.

A voxel belongs to the hull where two photos show something opaque in it, and all photos that look at it do,
or all but one in twenty (a cut-out may be wrong). A photo that is opaque nowhere on its edge shows the whole
thing: what lies outside of its picture does not belong to it. The search is coarse and errs to the large
side: what a photo shows of a voxel is all of a square around its middle's pixel that covers it.
"""

import numpy as np

from sparse3d.data.photos import PosedPhotos
from sparse3d.geometry.cameras import Camera

Vector = tuple[float, float, float]

PHOTOS = 40  # looked at, evenly chosen
CELLS = 48  # voxels along a side
ROUNDS = 2  # each in the cube that the one before found
FAULTS = 20  # one photo in so many may see nothing where there is something
OPAQUE = 0.5
MARGIN = 0.05  # of the hull's width, on each side


def cube_around(photos: PosedPhotos, low: Vector, side: float) -> tuple[Vector, float]:
    """The corner with the smallest coordinates, and the side, metres, of the cube around what is opaque in
    photos within the cube (`low`, `side`); that cube itself where no photo has an opacity, or where nothing
    is opaque in all."""
    rows = [row for row in range(len(photos)) if photos.has_alpha(row)]
    if not rows:
        return low, side
    rows = [rows[place] for place in np.unique(np.linspace(0, len(rows) - 1, PHOTOS).round().astype(int))]
    views = [(photos.cameras[row], _counts(photos.pixels(row)[..., 3])) for row in rows]
    for _ in range(ROUNDS):
        middles = _carved(views, np.array(low), side)
        if not len(middles):
            break
        cell = side / CELLS
        least, most = middles.min(0) - cell / 2, middles.max(0) + cell / 2
        wide = float((most - least).max()) * (1 + 2 * MARGIN)
        if wide >= side:
            break
        corner = (least + most) / 2 - wide / 2
        low, side = (float(corner[0]), float(corner[1]), float(corner[2])), wide
    return low, side


def _counts(alpha: np.ndarray) -> np.ndarray:
    """(H, W) uint8 -> (H + 1, W + 1): how many opaque pixels there are above and left of a corner."""
    opaque = alpha >= 255 * OPAQUE
    return np.pad(opaque.cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))


def _carved(views: list[tuple[Camera, np.ndarray]], low: np.ndarray, side: float) -> np.ndarray:
    """(M, 3): the middles of the voxels that belong to the hull."""
    cell = side / CELLS
    axis = (np.arange(CELLS) + 0.5) * cell
    middles = low + np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    hits, misses = np.zeros(len(middles), dtype=np.int64), np.zeros(len(middles), dtype=np.int64)
    for camera, counts in views:
        left = np.flatnonzero(misses <= len(views) // FAULTS)
        inside, shown = _shown(camera, counts, middles[left], cell)
        hits[left] += inside & shown
        misses[left] += inside & ~shown
    return middles[(hits >= min(2, len(views))) & (misses <= len(views) // FAULTS)]


def _shown(
    camera: Camera, counts: np.ndarray, middles: np.ndarray, cell: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which voxels' middles (M, 3) a picture says something of, and around which of them it is opaque."""
    pixels, depth = camera.project(middles)
    size = np.array([camera.width, camera.height])
    with np.errstate(invalid="ignore"):
        inside = ((pixels >= 0) & (pixels <= size)).all(1) & (depth > 0)
    pixels, depth = np.where(inside[:, None], pixels, 0), np.where(inside, depth, 1)
    # The ball around a voxel, as wide as the middle of the picture shows it.
    reach = max(camera.fx, camera.fy) * cell * np.sqrt(3) / 2 / np.maximum(depth, cell / 2)
    first = np.clip(np.floor(pixels - reach[:, None]), 0, size).astype(np.int64)
    last = np.clip(np.ceil(pixels + reach[:, None]), 0, size).astype(np.int64)
    (x0, y0), (x1, y1) = first.T, last.T
    shown = counts[y1, x1] - counts[y0, x1] - counts[y1, x0] + counts[y0, x0] > 0
    within = counts[-2, -2] - counts[1, -2] - counts[-2, 1] + counts[1, 1]
    whole = within == counts[-1, -1] > 0
    return inside | whole, shown & inside
