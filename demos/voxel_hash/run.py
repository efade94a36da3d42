"""What the voxel hash does with a scanned car: keys, a kernel map, strides, DSVT's windows and sets.

python demos/voxel_hash/run.py [--headless out.png]
"""

import numpy as np
import torch

from sparse3d import SparseTensor
from sparse3d.data.minidrive import DriveConfig, simulate_drive
from sparse3d.geometry.rigid import transform_points
from sparse3d.sites import Geometry
from sparse3d.viewers.colors import class_color, height_colors
from sparse3d.viewers.exhibit import Exhibit, Lines, Viewpoint
from sparse3d.viewers.shapes import cube_edges, cubes
from sparse3d.viewers.stage import Stage, demo_arguments
from sparse3d_ops.windows import window_sets

VOXEL = 0.15  # metres
GRID = (36, 20, 13)  # voxels around the car
DIM = (70, 78, 104)


def main() -> None:
    arguments = demo_arguments("Look into the voxel hash.").parse_args()
    x, side = parked_car(4 if arguments.quick else 40)
    middle = np.array(GRID) / 2 * VOXEL
    away = np.array([-3.3, 5.0 * side, 3.6])  # from the side that the LiDAR saw

    def exhibit(title, colors, voxels=x.coordinates, stride=1, lines=None, about=middle, near=1.0):
        view = Viewpoint(tuple(about + near * away), tuple(about))
        low = voxels[:, 1:].numpy() * VOXEL * stride
        ends = np.zeros((0, 2, 3)) if lines is None else lines
        drawn = Lines(ends, np.full((len(ends), 3), 230, np.uint8))
        return Exhibit(title, view, (cubes(low, VOXEL * stride, colors),), lines=drawn)

    pages = [exhibit(f"{len(x)} voxels, light to dark as their keys are sorted", by_rank(x.sites.keys()))]
    pages.append(kernel_page(x, exhibit))
    for stride in (2, 4):
        step = Geometry(kernel_size=(stride,) * 3, stride=(stride,) * 3)
        _, coarse = x.sites.strided(step)
        colors = by_height(coarse.coordinates)
        title = f"stride {stride}: {len(coarse)} voxels of {stride * VOXEL:g} m, found by the same keys"
        pages.append(exhibit(title, colors, coarse.coordinates, stride))
    for axis, shift in (("y", 0), ("x", 6)):
        pages.append(sets_page(x, exhibit, axis, shift))

    stage = Stage(arguments.headless, panel=(420, 320))
    stage.browse(pages)
    stage.end()


def parked_car(scans: int) -> tuple[SparseTensor, float]:
    """The voxels around the parked car that a drive through a generated street sees best, of all its scans,
    and on which side of it the street is: 1 or -1 along y."""
    drive = list(simulate_drive(seed=3, index=0, drive=DriveConfig(scans)))
    first = drive[0]
    parked = (first.names == "Car") & (np.abs(first.velocities).max(1) == 0)
    hits = np.sum([seen.scan.hits for seen in drive], axis=0) * parked
    box = first.boxes[hits.argmax()]  # the world is the frame of the first scan
    world = np.concatenate([transform_points(s.scan.points[:, :3], s.world_from_lidar) for s in drive])
    corner = box[:3] - np.array([GRID[0] / 2, GRID[1] / 2, 0]) * VOXEL - [0, 0, box[5] / 2 + 0.25]
    cells = np.floor((world - corner) / VOXEL).astype(np.int32)
    cells = cells[((cells >= 0) & (cells < GRID)).all(1)]
    coordinates = torch.from_numpy(np.unique(np.insert(cells, 0, 0, axis=1), axis=0))
    return SparseTensor(torch.ones(len(coordinates), 1), coordinates, shape=GRID), -float(np.sign(box[1]))


def kernel_page(x: SparseTensor, exhibit) -> Exhibit:
    """One voxel, and those that a 3 x 3 x 3 kernel finds around it."""
    table = x.sites.submanifold((3, 3, 3), (1, 1, 1)).table  # (N, 27): the row at each tap, or -1
    neighbours = (table >= 0).sum(1)
    open_above = table[:, 14] < 0  # tap 14 is the one above the middle
    middle = (x.coordinates[:, 1:3] - torch.tensor(GRID[:2]) / 2).abs().amax(1) < 6
    centre = int((neighbours * (open_above & middle & (x.coordinates[:, 3] > 4))).argmax())
    row = table[centre]
    found = row[(row >= 0) & (row != centre)].long()
    colors = np.tile(np.array(DIM, np.uint8), (len(x), 1))
    colors[found.numpy()], colors[centre] = class_color(2), class_color(0)
    middles = (x.coordinates[:, 1:].numpy() + 0.5) * VOXEL
    lines = np.stack([np.broadcast_to(middles[centre], (len(found), 3)), middles[found.numpy()]], 1)
    missing = int((row < 0).sum())
    title = f"kernel map of one voxel: {len(found)} of 26 neighbours, {missing} taps have none"
    return exhibit(title, colors, lines=lines, about=middles[centre], near=0.4)


def sets_page(x: SparseTensor, exhibit, axis: str, shift: int) -> Exhibit:
    """The voxels in the colours of the sets that attend to each other; windows as frames."""
    window = (12, 12, GRID[2])
    sets = window_sets(x.coordinates, list(GRID), list(window), [shift, shift, 0], set_size=36)
    order = sets.order_y if axis == "y" else sets.order_x
    number = torch.empty(len(x), dtype=torch.int64)
    number[order] = torch.repeat_interleave(torch.arange(len(sets.offsets) - 1), sets.offsets.diff())
    colors = np.array([class_color(n) for n in number.tolist()], dtype=np.uint8)
    cells = torch.unique((x.coordinates[:, 1:3] + shift) // 12, dim=0).numpy() * 12 - shift
    low = np.insert(cells, 2, 0, axis=1) * VOXEL
    frames = cube_edges(low, 12 * VOXEL)
    frames = frames[(frames[..., 2] == 0).all(1)]  # on the ground
    moved = f", windows shifted by {shift}" if shift else ""
    title = f"{len(sets.offsets) - 1} sets of at most 36 voxels, cut along {axis}{moved}"
    return exhibit(title, colors, lines=frames)


def by_rank(keys: torch.Tensor) -> np.ndarray:
    rank = torch.empty(len(keys), dtype=torch.float64)
    rank[keys.argsort()] = torch.linspace(1, 0, len(keys), dtype=torch.float64)
    return height_colors(rank.numpy()).astype(np.uint8)


def by_height(coordinates: torch.Tensor) -> np.ndarray:
    z = coordinates[:, 3].numpy()
    return height_colors(z / max(z.max(), 1)).astype(np.uint8)


if __name__ == "__main__":
    main()
