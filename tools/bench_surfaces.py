"""Time surfaces on voxels: distances, marching cubes, bands and dual grids, and how exact they are.

python tools/bench_surfaces.py [--meshes bunny.obj ...] [--resolution 256] [--dense 256] [--sparse 1024]
                               [--threads 1 2] [--repeats 5]

nearest     exact distances and nearest points; near the surface, and on a lattice through the whole box;
            Open3D: RaycastingScene.compute_closest_points (float32, Embree's tree)
marching    a dense grid with its vertices' places; scikit-image: measure.marching_cubes, which also makes
            normals; then the band of a sphere in a lattice of --sparse^3, with the process's largest memory
band, sparcubes, dual grid: a mesh of a file (without any: of a sphere) to voxels and back, with the Hausdorff
            distance in voxels, by points spread over both surfaces and their vertices
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import machine
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sparse3d.geometry.level_set import crossing
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.meshes import read_mesh
from sparse3d.mesh.distance import MeshDistance
from sparse3d.mesh.dual_grid import dual_grid_to_mesh, mesh_to_dual_grid
from sparse3d.mesh.signed_band import SignedBand, band_from_mesh, band_to_mesh
from sparse3d.mesh.sparcubes import mesh_to_sparcubes, sparcubes_to_mesh
from sparse3d_ops.marching_cubes import dense_neighbours, extract_blocks

_SPREAD = 300_000  # points on a surface


def sphere_band(resolution: int, width: float = 2.0) -> SignedBand:
    """The lattice points near a sphere that nearly fills a lattice, found without a mesh."""
    radius, side = 0.45 * resolution, 16
    axis = np.arange(-resolution // 2 // side, resolution // 2 // side)
    homes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    off = np.abs(np.linalg.norm((homes + 0.5) * side, axis=1) - radius)
    steps = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points, distances = [], []
    for home in homes[off < side * 0.87 + width]:
        place = home * side + steps
        away = np.linalg.norm(place - 0.31, axis=1) - radius
        near = np.abs(away) <= width
        points.append(np.pad(place[near], ((0, 0), (1, 0))).astype(np.int32))
        distances.append(away[near].astype(np.float32))
    return SignedBand(np.concatenate(points), np.concatenate(distances), 1.0, np.zeros(3))


def sphere_mesh(resolution: int = 96) -> Mesh:
    return band_to_mesh(sphere_band(resolution))


def nearest(board: machine.Board, limits: machine.Limits, name: str, mesh: Mesh) -> None:
    extent, count = np.ptp(mesh.vertices, axis=0), 64
    face, weights = mesh.spread_points(count**3)
    on = (weights[:, :, None] * mesh.vertices[mesh.faces[face]]).sum(1)
    noise = np.random.default_rng(0).normal(size=on.shape) * extent.max() / 500
    axes = [
        np.linspace(a - 0.1 * e, a + 1.1 * e, count)
        for a, e in zip(mesh.vertices.min(0), extent, strict=True)
    ]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    distance = MeshDistance(mesh)
    open3d = machine.optional("open3d")
    for where, places in (("near the surface", on + noise), ("lattice", lattice)):
        contestants: dict[str, machine.Call] = {"sparse3d": lambda places=places: distance.nearest(places)}
        if open3d:
            core = open3d.core
            scene = open3d.t.geometry.RaycastingScene()
            scene.add_triangles(core.Tensor(mesh.vertices), core.Tensor(mesh.faces.astype(np.uint32)))
            asked, threads = core.Tensor(places.astype(np.float32)), limits.threads
            contestants["Open3D"] = lambda s=scene, a=asked, t=threads: s.compute_closest_points(a, t)
        size = f"{len(places)} places, {len(mesh.faces)} triangles ({name})"
        board.row(f"nearest, {where}", size, limits, machine.Work(len(places) * 64), contestants)


def dense(board: machine.Board, limits: machine.Limits, size: int) -> None:
    axis = torch.linspace(-1, 1, size)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    values = (0.8 - (x * x + y * y + z * z).sqrt()).contiguous()
    array = values.numpy()

    def ours() -> torch.Tensor:
        low, high, _ = extract_blocks(values[None], dense_neighbours(), 0.0)
        part = crossing(values.view(-1)[low], values.view(-1)[high])
        places = [torch.stack([ends // size**2, ends // size % size, ends % size], 1) for ends in (low, high)]
        return places[0] + part[:, None] * (places[1] - places[0])

    contestants: dict[str, machine.Call] = {"sparse3d": ours}
    if measure := machine.optional("skimage.measure"):
        contestants["scikit-image"] = lambda: measure.marching_cubes(array, 0.0)
    board.row("marching, dense", f"{size}^3", limits, machine.Work(4 * size**3), contestants)


def peak_gib() -> str:
    """The largest memory that this process has had."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"


def sparse(resolution: int, threads: int) -> None:
    band_to_mesh(sphere_band(32))  # compiled
    band = sphere_band(resolution)
    begin = time.perf_counter()
    mesh = band_to_mesh(band)
    took, peak = time.perf_counter() - begin, peak_gib()
    print(
        f"marching, sparse: {len(band.points)} points of {resolution}^3 -> {len(mesh.faces)} triangles in "
        f"{took:.2f} s on {threads} threads; closed: {mesh.is_closed}; largest memory of the process until "
        f"then, making the band included: {peak}"
    )


def hausdorff(one: Mesh, other: Mesh) -> tuple[float, float]:
    """How far the points of each are from the other, at most, metres."""
    found = []
    for a, b in ((one, other), (other, one)):
        face, weights = a.spread_points(_SPREAD)
        on = (weights[:, :, None] * a.vertices[a.faces[face]].astype(np.float64)).sum(1)
        found.append(float(MeshDistance(b).unsigned(np.concatenate([a.vertices, on])).max()))
    return found[0], found[1]


def there_and_back(table: Table, name: str, mesh: Mesh, resolution: int) -> None:
    voxel_size = float(np.ptp(mesh.vertices, axis=0).max()) / resolution
    ways: dict[str, tuple[Callable, Callable]] = {
        "band": (band_from_mesh, band_to_mesh),
        "sparcubes": (mesh_to_sparcubes, sparcubes_to_mesh),
        "dual grid": (mesh_to_dual_grid, dual_grid_to_mesh),
        "dual grid, drop": (lambda m, v: mesh_to_dual_grid(m, v, doubled="drop"), dual_grid_to_mesh),
    }
    for way, (there, back) in ways.items():
        begin = time.perf_counter()
        voxels = there(mesh, voxel_size)
        then = time.perf_counter()
        found = back(voxels)
        end = time.perf_counter()
        lost, added = (far / voxel_size for far in hausdorff(mesh, found))
        cells = [name, str(len(mesh.faces)), way, f"{then - begin:.2f}", f"{end - then:.2f}"]
        kind = f"{mesh.euler_number} -> {found.euler_number}"
        borders = f"{(mesh.edges[1] == 1).sum()} -> {(found.edges[1] == 1).sum()}"
        table.add_row(*cells, str(len(found.faces)), f"{lost:.3f}", f"{added:.3f}", kind, borders)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--meshes", nargs="*", default=[], help="files of meshes")
    parser.add_argument("--resolution", type=int, default=256, help="voxels along a mesh")
    parser.add_argument("--dense", type=int, default=256)
    parser.add_argument("--sparse", type=int, default=1024)
    machine.add_arguments(parser)
    parser.set_defaults(repeats=5)
    args = parser.parse_args()
    meshes = {Path(path).stem: read_mesh(path) for path in args.meshes} or {"sphere": sphere_mesh()}
    board = machine.Board("surfaces on voxels", ["Open3D", "scikit-image"], args.repeats)
    machine.use_threads(args.threads[-1])
    sparse(args.sparse, args.threads[-1])  # first, while the process has had no memory but its own
    for limits in machine.each_limit(args.threads):
        dense(board, limits, args.dense)
        for name, mesh in meshes.items():
            nearest(board, limits, name, mesh)
    board.print()
    table = Table(
        title=f"to voxels and back at {args.resolution}, {args.threads[-1]} threads; distances in voxels"
    )
    for column in ("mesh", "triangles", "way", "there s", "back s", "then"):
        table.add_column(column)
    for column in ("mesh from result", "result from mesh", "Euler number", "border edges"):
        table.add_column(column, justify="right")
    for name, mesh in {"": sphere_mesh(32), **meshes}.items():  # the first compiles
        if name:
            there_and_back(table, name, mesh, args.resolution)
        else:
            there_and_back(Table(*"abcdefghij"), name, mesh, 32)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
