"""What conversions lose: a field of photos as Gaussians, as surfels and as voxels again, and round trips of a
ball through every representation.

    python tools/bench_conversion.py [--steps 1000] [--run RUN] [--resolution 64] [--refine 300] [--threads 2]

First a voxel field of the three spheres is trained for `--steps` (or loaded from a run of them), and judged
on photos that it has not seen, as is what is made of it: within 1 dB of the field is what Gaussians should
reach, within 3 dB of those the voxels that are made of them. Then a ball of 1 m goes to each representation
and back; distances are those from the exact ball, in voxels.
"""

import argparse
import tempfile
import time
from pathlib import Path

import machine
import numpy as np
from rich.console import Console
from rich.table import Table

from sparse3d import config as configs
from sparse3d.data.three_spheres import (
    FIELD_OF_VIEW,
    HALF_SIDE,
    RADII,
    ThreeSpheresConfig,
    cameras,
    picture,
    write_three_spheres,
)
from sparse3d.evaluation.images import psnr
from sparse3d.evaluation.surfaces import score_against_shape
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh
from sparse3d.recipes.conversion.kinds import ConversionConfig, Kind, Thing, described
from sparse3d.recipes.conversion.steps import convert
from sparse3d.recipes.conversion.views import bounds_of, ring, sight, surface_of
from sparse3d.recipes.radiance import reconstruct
from sparse3d.recipes.radiance.config import RadianceConfig
from sparse3d.recipes.surface_scores import balls_of

SIZE, VIEWS = 100, 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--run", help="of the three spheres, trained before")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--refine", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    machine.use_threads(arguments.threads)
    print(f"{machine.words()}; cpu, {arguments.threads} threads, float32")
    config = ConversionConfig(resolution=arguments.resolution, refine=arguments.refine)
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or trained(Path(folder), arguments.steps)
        console.print(of_photos(reconstruct.load_field(run).field, config))
    console.print(round_trips(config))


def trained(folder: Path, steps: int) -> Path:
    """A run on photos of the three spheres."""
    write_three_spheres(folder / "photos", ThreeSpheresConfig(size=SIZE, held_out=VIEWS))
    changes = [f"train.steps={steps}", f"data.root={folder / 'photos'}", "train.device=cpu"]
    begin = time.perf_counter()
    reconstruct.train(configs.load(RadianceConfig, "voxels_three_spheres", changes), folder / "run")
    print(f"a field of {steps} steps: {time.perf_counter() - begin:.0f} s")
    return folder / "run"


def of_photos(field: Thing, config: ConversionConfig) -> Table:
    """Pictures of what is made of a field against photos that nothing has seen; surfaces against the exact
    one."""
    poses, photos = cameras(VIEWS, 7), ThreeSpheresConfig(size=SIZE)
    focal = 0.5 * SIZE / np.tan(FIELD_OF_VIEW / 2)
    wanted = []
    for pose in poses:
        pixels = picture(pose, photos)
        color = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
        wanted.append((Camera(focal, focal, SIZE / 2, SIZE / 2, SIZE, SIZE, pose), color))
    balls, size = balls_of("three_spheres"), config.voxel(2 * HALF_SIDE)
    assert balls is not None
    table = Table(
        "three spheres", "made", "s", "PSNR of photos, dB", "to the field, dB", "surface, mm", "voxels"
    )
    gaussians, seconds = timed(field, Kind.GAUSSIANS, config)
    rows = [("field", field, 0.0), ("-> gaussians", gaussians, seconds)]
    rows.append(("gaussians -> voxels", *timed(gaussians, Kind.VOXELS, config)))
    rows.append(("field -> surfels", *timed(field, Kind.SURFELS, config)))
    first = None
    for name, thing, seconds in rows:
        found = float(np.mean([psnr(np.clip(sight(thing, c).color, 0, 1), color) for c, color in wanted]))
        first = first or found
        surface = surface_of(thing, config.resolution)
        off = score_against_shape(surface, balls.distance, balls.spread(20_000), RADII.min() / 10, 20_000)
        table.add_row(
            name,
            described(thing),
            f"{seconds:.1f}",
            f"{found:.2f}",
            f"{found - first:+.2f}",
            f"{1000 * off.chamfer:.2f}",
            f"{off.chamfer / size:.3f}",
        )
    return table


def timed(thing: Thing, kind: Kind, config: ConversionConfig) -> tuple[Thing, float]:
    begin = time.perf_counter()
    return convert(thing, kind, config), time.perf_counter() - begin


def ball(rings: int = 128) -> Mesh:
    """1 m across, its colours those of its normals."""
    turn, height = np.arange(2 * rings) / rings * np.pi, np.arange(1, rings) / rings * np.pi
    around = np.stack([np.cos(turn), np.sin(turn)], 1)
    ring_points = np.concatenate(
        [np.concatenate([np.sin(h) * around, np.full((len(turn), 1), np.cos(h))], 1) for h in height]
    )
    unit = np.concatenate([[[0, 0, 1]], ring_points, [[0, 0, -1]]])
    n, last = 2 * rings, len(unit) - 1
    j = np.arange(n)
    k = (j + 1) % n
    faces = [np.stack([0 * j, 1 + j, 1 + k], 1), np.stack([0 * j + last, last - n + k, last - n + j], 1)]
    for i in range(rings - 2):
        a, b = 1 + i * n, 1 + (i + 1) * n
        faces += [np.stack([a + j, b + j, b + k], 1), np.stack([a + j, b + k, a + k], 1)]
    colors = np.rint((0.5 + 0.4 * unit) * 255).astype(np.uint8)
    return Mesh(unit / 2, np.concatenate(faces), colors)


def round_trips(config: ConversionConfig) -> Table:
    """mesh -> each kind -> mesh."""
    mesh, exact = ball(), balls_of("sphere:0,0,0,0.5")
    assert exact is not None
    size = config.voxel(1.0)
    views = [(c, sight(mesh, c).color) for c in ring(*bounds_of(mesh), 8, config.pixels, turn=0.37)]
    table = Table(
        "a ball of 1 m, mesh ->", "made", "s", "PSNR, dB", "-> mesh", "Chamfer, voxels", "normals", "PSNR, dB"
    )
    for kind in (Kind.BAND, Kind.OCCUPANCY, Kind.VOXELS, Kind.GAUSSIANS, Kind.SURFELS, Kind.POINTS):
        there, seconds = timed(mesh, kind, config)
        back = convert(there, Kind.MESH, config)
        assert isinstance(back, Mesh)
        off = score_against_shape(back, exact.distance, exact.spread(20_000), size, 20_000)
        alike = [
            float(np.mean([psnr(np.clip(sight(thing, c).color, 0, 1), color) for c, color in views]))
            for thing in (there, back)
        ]
        table.add_row(
            str(kind),
            described(there),
            f"{seconds:.1f}",
            f"{alike[0]:.2f}",
            described(back),
            f"{off.chamfer / size:.3f}",
            f"{off.normal_consistency:.4f}",
            f"{alike[1]:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
