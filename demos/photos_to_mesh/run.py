"""From photos to a field to a mesh, with the error against the surface that is known.

    python demos/photos_to_mesh/run.py [--out spheres.glb] [--headless out.png]

A sparse voxel field learns density and colour from 50 generated photos of three spheres; its surface is
followed through the voxels and coloured. In the window the mesh stands beside its errors.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sparse3d.data.three_spheres import LAMP, ThreeSpheresConfig, surface_distance, write_three_spheres
from sparse3d.evaluation.surfaces import points_on_mesh
from sparse3d.fields.mesh import MeshConfig, field_mesh
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.meshes import write_mesh
from sparse3d.recipes import tasks
from sparse3d.recipes.radiance.reconstruct import load_field, photos_of_split, train
from sparse3d.recipes.scenes import scene_of
from sparse3d.viewers.colors import height_colors
from sparse3d.viewers.exhibit import Exhibit, Viewpoint
from sparse3d.viewers.stage import Stage, demo_arguments

VIEW = Viewpoint((1.1, 1.3, 1.2), (0.0, -0.05, 0.03))
APART = np.array([-1.2, 1.1, 0.0], np.float32)  # where the second mesh stands in the window
WORST = 0.005  # metres, the brightest colour of the errors


def main() -> None:
    parser = demo_arguments("Photos, a voxel field, a mesh.")
    parser.add_argument("--out", type=Path, help="also write the mesh: .glb, .ply, .obj")
    arguments = parser.parse_args()
    stage = Stage(arguments.headless, panel=(420, 420))
    with TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        shot = ThreeSpheresConfig(views=14 if arguments.quick else 50, held_out=4)
        write_three_spheres(photos, shot)
        steps = 60 if arguments.quick else 1000
        overrides = [f"data.root={photos}", f"train.steps={steps}", "priors=none"]
        config = tasks.load("voxels_three_spheres", overrides)
        train(config, Path(folder) / "run", photos=photos_of_split(config.data, "train"))
        loaded = load_field(Path(folder) / "run")
        held_out = photos_of_split(replace(config.data, views=None), "test")
        row = int((held_out.cameras.origins @ LAMP).argmax())  # from the light side
        photo = held_out.photo(row).over((1.0, 1.0, 1.0))
        seen = scene_of(loaded).draw(held_out.cameras[row], (1.0, 1.0, 1.0))

    stage.keep_picture(photo, "a photo that training never saw")
    stage.keep_picture(seen.color, "the field from there")
    mesh = field_mesh(loaded.field, MeshConfig(level=2.0 if arguments.quick else None))
    distance = np.abs(surface_distance(points_on_mesh(mesh, 20_000)))
    shown = f"mesh: {len(mesh.faces)} triangles, {'closed' if mesh.is_closed else 'open'}"
    stage.keep(Exhibit(shown, VIEW, (mesh,)))
    caption = f"errors: {1000 * distance.mean():.1f} mm on average, bright is {1000 * WORST:.0f} mm"
    stage.keep(Exhibit(caption, VIEW, (with_errors(mesh),)))
    beside = Mesh(mesh.vertices + APART, mesh.faces, with_errors(mesh).colors)
    stage.show(Exhibit("mesh and errors", VIEW, (mesh, beside)))
    if arguments.out is not None:
        write_mesh(arguments.out, mesh)
        print(f"written to {arguments.out}")
    stage.end()


def with_errors(mesh: Mesh) -> Mesh:
    """In colours of how far each vertex is from the true surface."""
    distance = np.abs(surface_distance(mesh.vertices.astype(np.float64)))
    return mesh.with_colors(height_colors(distance / WORST).astype(np.uint8))


if __name__ == "__main__":
    main()
