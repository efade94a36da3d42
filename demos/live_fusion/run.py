"""Depth frames become a mesh while they come in.

    python demos/live_fusion/run.py [--out room.glb] [--headless out.png]

A camera walks past the corner of a room, whose surface is known; each depth frame is averaged into a
truncated distance field on the voxel hash, and the mesh grows where blocks have changed.
"""

import math
import time
from pathlib import Path

import numpy as np
import room

from sparse3d.evaluation.surfaces import points_on_mesh
from sparse3d.fusion.volume import TSDFVolume
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.orbits import looking
from sparse3d.io.meshes import write_mesh
from sparse3d.viewers.colors import height_colors
from sparse3d.viewers.exhibit import Exhibit, Lines, Viewpoint
from sparse3d.viewers.shapes import frustum
from sparse3d.viewers.stage import Stage, demo_arguments

VIEW = Viewpoint((4.9, 4.6, 3.3), (1.2, 1.25, 0.62), field_of_view=40)
MIDDLE = np.array([1.1, 1.1, 0.5])  # what the camera looks at, more or less
YELLOW = (255, 200, 80)


def main() -> None:
    parser = demo_arguments("Fuse depth frames of a generated room.")
    parser.add_argument("--voxel-size", type=float, default=0.015, help="metres (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.0015, help="metres, at 1 m (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="also write the mesh: .glb, .ply, .obj")
    arguments = parser.parse_args()
    count, voxel = (8, 0.05) if arguments.quick else (90, arguments.voxel_size)
    kept = {count // 15 + 1, count // 4, count // 2, count}
    stage = Stage(arguments.headless, panel=(400, 300))
    volume, rng, seconds, way = TSDFVolume(voxel), np.random.default_rng(0), 0.0, []
    for number, camera in enumerate(walk(count), 1):
        frame = room.look(camera)
        # A sensor's error grows with the square of the distance.
        noisy = frame.depth + rng.normal(0, arguments.noise, frame.depth.shape) * frame.depth**2
        depth = np.where(frame.depth > 0, noisy, 0).astype(np.float32)
        if number == 1:
            tones = height_colors(1 - depth.ravel() / 4).reshape(*depth.shape, 3) / 255
            stage.keep_picture(tones, "the first of the depth frames")
        begin = time.perf_counter()
        intrinsics = np.array([camera.fx, camera.fy, camera.cx, camera.cy])
        volume.integrate(depth, intrinsics, camera.camera_to_world, frame.color)
        mesh = volume.changed_mesh()
        seconds += time.perf_counter() - begin
        way.append(camera.camera_to_world[:3, 3])
        title = f"{number} frames: {len(mesh.faces)} triangles"
        shown = Exhibit(title, VIEW, (mesh,), lines=walked(camera, way))
        (stage.keep if number in kept else stage.show)(shown)
        if not stage.is_open:
            return
    mesh = volume.mesh(min_weight=2.0)
    error = room.distance(points_on_mesh(mesh, 50_000))
    caption = f"errors: {1000 * error.mean():.1f} mm on average, bright is a voxel"
    off = room.distance(mesh.vertices.astype(np.float64))
    stage.keep(Exhibit(caption, VIEW, (mesh.with_colors(height_colors(off / voxel).astype(np.uint8)),)))
    print(f"{1000 * seconds / count:.0f} ms a frame with its part of the mesh; voxels of {1000 * voxel:g} mm")
    if arguments.out is not None:
        write_mesh(arguments.out, mesh)
        print(f"written to {arguments.out}")
    stage.show(shown)
    stage.end()


def walk(count: int) -> list[Camera]:
    """Cameras on an arc, up and down, that look into the corner."""
    cameras = []
    for part in np.linspace(0, 1, count):
        angle, turn = math.radians(12 + 66 * part), 4 * math.pi * part
        reach = np.array([math.cos(angle), math.sin(angle), 0])
        eye = MIDDLE + 2.3 * reach + [0, 0, 0.75 + 0.35 * math.sin(turn)]
        target = MIDDLE + 0.5 * np.array([-reach[1], reach[0], 0]) * math.cos(turn)
        pose = looking(eye, target, np.array([0.0, 0.0, 1.0]))
        cameras.append(Camera(290.0, 290.0, 160.0, 120.0, 320, 240, pose))
    return cameras


def walked(camera: Camera, way: list[np.ndarray]) -> Lines:
    """The camera as a pyramid, and where it has been."""
    path = np.array(way)
    ends = np.concatenate([frustum(camera, 0.35), np.stack([path[:-1], path[1:]], 1)])
    return Lines(ends, np.tile(np.array(YELLOW, np.uint8), (len(ends), 1)))


if __name__ == "__main__":
    main()
