"""There and back: a mesh becomes voxels, the voxels Gaussians, the Gaussians a mesh; with the error of each.

    python demos/mesh_round_trip/run.py [--voxel-size 0.03] [--headless out.png]

The mesh is a knot. It becomes signed distances on the lattice near it, those radiance voxels, those
Gaussians, and those a mesh again: steps of `sparse3d convert`, one by one.
"""

import time

import numpy as np
from rich.console import Console

from sparse3d.evaluation.surfaces import distance_to_mesh
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.signed_band import SignedBand
from sparse3d.recipes.conversion.judging import compared, convert_and_judge, table
from sparse3d.recipes.conversion.kinds import ConversionConfig, Kind, Thing, described
from sparse3d.recipes.conversion.views import sight
from sparse3d.recipes.splatting.surface import SplatMeshConfig, splats_to_mesh
from sparse3d.viewers.colors import height_colors
from sparse3d.viewers.exhibit import DARK, Exhibit, Viewpoint
from sparse3d.viewers.shapes import cubes
from sparse3d.viewers.stage import Stage, demo_arguments

WORST = 0.01  # metres, the brightest colour of the errors
PANEL = (300, 230)
VIEW = Viewpoint((-1.0, -2.2, 1.9), (0.0, 0.0, -0.1))
CLOSE = Viewpoint((-0.7, -1.2, 0.9), (-0.3, -0.4, 0.0))


def main() -> None:
    parser = demo_arguments("Mesh, voxels, Gaussians, mesh.")
    parser.add_argument("--voxel-size", type=float, default=0.03, help="metres (default: %(default)s)")
    parser.add_argument("--gaussians", type=int, default=40_000, help="(default: %(default)s)")
    arguments = parser.parse_args()
    voxel, count = (0.08, 3000) if arguments.quick else (arguments.voxel_size, arguments.gaussians)
    # Laid on the surface and not fitted to pictures: what looks alike need not lie alike.
    config = ConversionConfig(48 if arguments.quick else 128, voxel, count, refine=0)
    stage = Stage(arguments.headless, PANEL)
    whole = thing = knot(80, 12) if arguments.quick else knot()
    show(stage, whole, f"mesh: {described(whole)}")
    rows = []
    for kind in (Kind.BAND, Kind.VOXELS, Kind.GAUSSIANS):
        thing, judged = convert_and_judge(thing, kind, config)
        rows += judged
        show(stage, thing, f"{kind}: {described(thing)}")
    assert isinstance(thing, GaussianCloud)
    # What cameras all around see of them, fused: they are opaque, so that depth is well known.
    begin = time.perf_counter()
    back = splats_to_mesh(thing, SplatMeshConfig("fusion", resolution=40 if arguments.quick else 200))
    rows += [compared(thing, back, config, time.perf_counter() - begin), compared(whole, back, config)]
    show(stage, back, f"mesh: {described(back)}")
    Console(width=110).print(table(rows, voxel))
    off = distance_to_mesh(whole, back.vertices.astype(np.float64))
    title = f"there and back: {1000 * off.mean():.1f} mm off, bright is {1000 * WORST:.0f} mm"
    stage.keep(Exhibit(title, VIEW, (back.with_colors(height_colors(off / WORST).astype(np.uint8)),)))
    stage.show(Exhibit("", VIEW, (back,)))
    stage.end()


def show(stage: Stage, thing: Thing, title: str) -> None:
    """Meshes and Gaussians as they are, signed distances as cubes beneath the surface, a field as a
    picture."""
    if isinstance(thing, Mesh):
        stage.keep(Exhibit(title, VIEW, (thing,)))
    elif isinstance(thing, GaussianCloud):
        stage.keep(Exhibit(title, VIEW, splats=thing))
    elif isinstance(thing, SignedBand):
        beneath = (thing.distances <= 0) & (thing.distances > -1.5 * thing.voxel_size)
        assert thing.colors is not None
        low = thing.places[beneath] - thing.voxel_size / 2
        drawn = cubes(low, thing.voxel_size, thing.colors[beneath], shrink=0.15)
        stage.keep(Exhibit(title, CLOSE, (drawn,)))
    else:
        background = (DARK[0] / 255, DARK[1] / 255, DARK[2] / 255)
        stage.keep_picture(sight(thing, VIEW.camera(*PANEL), background).color, title)


def knot(around_way: int = 400, around_tube: int = 48, radius: float = 0.2) -> Mesh:
    """A tube along a trefoil knot, closed, striped; 2 metres across."""
    t = np.linspace(0, 2 * np.pi, around_way, endpoint=False)
    centre = np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], 1) / 3
    along = np.roll(centre, -1, 0) - np.roll(centre, 1, 0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.cross(along, [0.0, 0.0, 1.0])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    upward = np.cross(across, along)
    turn = np.linspace(0, 2 * np.pi, around_tube, endpoint=False)
    off = np.cos(turn)[:, None] * across[:, None] + np.sin(turn)[:, None] * upward[:, None]
    vertices = (centre[:, None] + radius * off).reshape(-1, 3)
    i, j = np.divmod(np.arange(len(vertices)), around_tube)
    right, above = (i + 1) % around_way * around_tube, (j + 1) % around_tube
    here, a, b, c = i * around_tube + j, right + j, right + above, i * around_tube + above
    faces = np.concatenate([np.stack([here, b, a], 1), np.stack([here, c, b], 1)])
    stripe = (0.5 + 0.5 * np.sin(3 * turn[None] + 8 * t[:, None])).reshape(-1)
    light = 0.6 + 0.4 * off.reshape(-1, 3) @ np.array([0.4, -0.5, 0.77])
    tint = np.stack([0.25 + 0.7 * stripe, 0.55 - 0.1 * stripe, 0.85 - 0.6 * stripe], 1) * light[:, None]
    mesh = Mesh(vertices, faces, (255 * tint.clip(0, 1)).round().astype(np.uint8))
    return mesh if mesh.volume > 0 else Mesh(vertices, faces[:, ::-1], mesh.colors)


if __name__ == "__main__":
    main()
