"""Fusion of depth maps beside Open3D's VoxelBlockGrid, in one run: time and error.

    python tools/bench_fusion.py                                   # a ball in a room, exact depth
    python tools/bench_fusion.py --data 7SCENES --picture both.png # real frames too, both meshes drawn

640 x 480, voxels of 1 cm, truncation of 4 voxels. Timed in turns: finding and filling the blocks of one more
frame with colour, the mesh of all, a ray cast with depth, normals and colour. On exact depth the error of
vertices and of ray casts is told in voxels. Open3D counts pixel centres from 0, so its intrinsics are
half a pixel less. Needs the extra `viz`.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import machine
import numpy as np
from PIL import Image

from sparse3d.errors import require_extra
from sparse3d.fusion.volume import TSDFVolume
from sparse3d.geometry.orbits import looking
from sparse3d.io.rgbd_frames import find_rgbd_frames
from sparse3d.recipes.fusion import read_frame

VOXEL, TRUNCATION = 0.01, 4.0  # metres; voxels
SIZE, INTRINSICS = (640, 480), (585.0, 585.0, 320.0, 240.0)
RADIUS, ROOM = 0.5, np.array([1.5, 1.5, 1.2])  # metres: of the ball at the origin, half the room's sides


class Frame(NamedTuple):
    depth: np.ndarray  # (H, W) float32 metres, 0 where unknown
    color: np.ndarray  # (H, W, 3) uint8
    pose: np.ndarray  # camera to world


def exact_frames(count: int) -> list[Frame]:
    """Cameras on a circle in the room, looking at the ball."""
    frames = []
    for angle in np.arange(count) / count * 2 * np.pi:
        eye = np.array([1.2 * np.cos(angle), 1.2 * np.sin(angle), 0.3])
        pose = looking(eye, np.zeros(3), np.array([0.0, 0.0, 1.0]))
        fx, fy, cx, cy = INTRINSICS
        u, v = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
        ways = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)], -1) @ pose[:3, :3].T
        with np.errstate(divide="ignore"):
            depth = np.max([(-ROOM - eye) / ways, (ROOM - eye) / ways], 0).min(-1)
        a, b, c = (ways * ways).sum(-1), ways @ eye, eye @ eye - RADIUS**2
        hit = b * b - a * c > 0
        depth[hit] = (-b[hit] - np.sqrt((b * b - a * c)[hit])) / a[hit]
        places = eye + depth[..., None] * ways
        color = np.clip(128 + 80 * places, 0, 255).astype(np.uint8)
        frames.append(Frame(depth.astype(np.float32), color, pose))
    return frames


def surface_distance(points: np.ndarray) -> np.ndarray:
    """Metres from the ball or the room, whichever is nearer."""
    to_ball = np.abs(np.linalg.norm(points, axis=-1) - RADIUS)
    return np.minimum(to_ball, np.abs(ROOM - np.abs(points)).min(-1))


def real_frames(folder: Path) -> list[Frame]:
    recording = find_rgbd_frames(folder)
    if recording is None or not recording.has_poses:
        raise SystemExit(f"{folder} holds no depth frames with poses")
    frames = []
    for frame in recording.frames:
        depth, color = read_frame(frame, True)
        if color is not None and frame.camera_to_world is not None:
            frames.append(Frame(np.nan_to_num(depth), color, frame.camera_to_world))
    return frames


class Ours:
    def __init__(self, frames: list[Frame]):
        self.frames, self.turn = frames, 0
        self.volume = TSDFVolume(VOXEL, TRUNCATION * VOXEL, max_depth=10.0)
        for _ in frames:
            self.integrate()

    def integrate(self) -> None:
        frame = self.frames[self.turn % len(self.frames)]
        self.turn += 1
        self.volume.integrate(frame.depth, INTRINSICS, frame.pose, frame.color)

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        mesh = self.volume.mesh()
        return mesh.vertices, mesh.faces

    def cast(self, pose: np.ndarray) -> np.ndarray:
        return self.volume.ray_cast(INTRINSICS, pose, SIZE, near=0.1, far=10.0).depth


class Theirs:
    """Takes whole millimetres with bytes of colour, or floats with floats."""

    def __init__(self, frames: list[Frame], exact: bool):
        o3d = require_extra("open3d", "viz")
        self.o3d, core = o3d, o3d.core
        fx, fy, cx, cy = INTRINSICS
        self.matrix = core.Tensor(np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]]))
        image = o3d.t.geometry.Image
        self.scale = 1.0 if exact else 1000.0
        kind = core.float32 if exact else core.uint16
        self.frames = []
        for f in frames:
            depth = f.depth if exact else np.rint(1000 * f.depth).astype(np.uint16)
            color = f.color.astype(np.float32) / 255 if exact else f.color
            self.frames.append((image(depth), image(color), core.Tensor(np.linalg.inv(f.pose))))
        self.grid = o3d.t.geometry.VoxelBlockGrid(
            ("tsdf", "weight", "color"),
            (core.float32, kind, kind),
            ((1), (1), (3)),
            VOXEL,
            16,
            20000,
            core.Device("CPU:0"),
        )
        self.turn = 0
        for _ in frames:
            self.integrate()

    def integrate(self) -> None:
        depth, color, pose = self.frames[self.turn % len(self.frames)]
        self.turn += 1
        how = self.matrix, pose, self.scale, 10.0, TRUNCATION
        blocks = self.grid.compute_unique_block_coordinates(depth, *how)
        self.grid.integrate(blocks, depth, color, *how)

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        mesh = self.grid.extract_triangle_mesh(0.5)
        return mesh.vertex.positions.numpy(), mesh.triangle.indices.numpy()

    def cast(self, pose: np.ndarray) -> np.ndarray:
        world_to_camera = self.o3d.core.Tensor(np.linalg.inv(pose))
        blocks = self.grid.hashmap().key_tensor()[
            self.grid.hashmap().active_buf_indices().to(self.o3d.core.int64)
        ]
        what = ["depth", "normal", "color"]
        limits = self.scale, 0.1, 10.0, 0.5, TRUNCATION
        seen = self.grid.ray_cast(blocks, self.matrix, world_to_camera, *SIZE, what, *limits)
        depth = seen["depth"].numpy()[..., 0] / self.scale
        return np.where(depth > 0, depth, np.nan)


def quietly(call: Callable[[], Any]) -> Callable[[], Any]:
    """Without what Open3D prints at each ray cast."""

    def called() -> Any:
        out, none = os.dup(1), os.open(os.devnull, os.O_WRONLY)
        os.dup2(none, 1)
        try:
            return call()
        finally:
            os.dup2(out, 1)
            os.close(out)
            os.close(none)

    return called


def contest(name: str, frames: list[Frame], exact: bool, repeats: int) -> tuple[Ours, Theirs]:
    ours, theirs = Ours(frames), Theirs(frames, exact)
    pose = frames[len(frames) // 2].pose
    print(f"\n{name}: {len(frames)} frames, {ours.volume.blocks.count} blocks of 8^3, "
          f"{len(ours.mesh()[1])} and {len(theirs.mesh()[1])} triangles (sparse3d, Open3D)")  # fmt: skip
    rows = [
        ("touch + integrate", ours.integrate, theirs.integrate),
        ("mesh", ours.mesh, theirs.mesh),
        ("ray cast", lambda: ours.cast(pose), quietly(lambda: theirs.cast(pose))),
    ]
    for what, ours_call, theirs_call in rows:
        times = machine.in_turns({"ours": ours_call, "theirs": theirs_call}, repeats)
        ratio = np.median(times["theirs"]) / np.median(times["ours"])
        print(
            f"  {what:18} sparse3d {machine.spread(times['ours'])} ms, "
            f"Open3D {machine.spread(times['theirs'])} ms: {ratio:.2f} times faster"
        )
    return ours, theirs


def errors(ours: Ours, theirs: Theirs, frames: list[Frame]) -> None:
    """Of exact depth, in voxels."""
    for name, one in (("sparse3d", ours), ("Open3D", theirs)):
        off = surface_distance(one.mesh()[0].astype(np.float64)) / VOXEL
        print(
            f"  {name}: vertices off by {off.mean():.3f} voxels on average, "
            f"95 % within {np.quantile(off, 0.95):.3f}"
        )
        parts = []
        for frame in frames[:: max(1, len(frames) // 5)]:
            seen = quietly(lambda one=one, frame=frame: one.cast(frame.pose))()
            parts.append((np.abs(seen - frame.depth) / VOXEL)[np.isfinite(seen)])
        off = np.concatenate(parts)
        print(
            f"  {name}: ray cast off by {np.median(off):.3f} voxels (median), {off.mean():.3f} on average, "
            f"95 % within {np.quantile(off, 0.95):.3f}"
        )


def draw(path: Path, ours: Ours, theirs: Theirs, pose: np.ndarray) -> None:
    """Both meshes from one camera, by their normals, side by side."""
    o3d = theirs.o3d
    pictures = []
    for vertices, faces in (ours.mesh(), theirs.mesh()):
        scene = o3d.t.geometry.RaycastingScene()
        scene.add_triangles(
            np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.uint32)
        )
        matrix, world_to_camera = theirs.matrix.numpy(), np.linalg.inv(pose)
        rays = scene.create_rays_pinhole(matrix, world_to_camera, *SIZE)
        hit = scene.cast_rays(rays)
        normals = hit["primitive_normals"].numpy()
        shade = np.abs((normals * rays.numpy()[..., 3:]).sum(-1)) / np.linalg.norm(
            rays.numpy()[..., 3:], axis=-1
        )
        pictures.append(np.where(np.isfinite(hit["t_hit"].numpy()), 40 + 215 * shade, 0).astype(np.uint8))
    Image.fromarray(np.hstack(pictures)).save(path)
    print(f"  drawn: {path} (left sparse3d, right Open3D)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="a recording in the style of 7-Scenes, 640 x 480")
    parser.add_argument("--picture", type=Path, help="draw both meshes of the recording to this file")
    parser.add_argument("--frames", type=int, default=20, help="of the exact scene (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    arguments = parser.parse_args()
    machine.use_threads(arguments.threads)
    print(f"{machine.words()}; {arguments.threads} threads; depth float32 {SIZE[0]} x {SIZE[1]}, voxels of "
          f"{VOXEL} m, truncation {TRUNCATION:g} voxels; median (fastest - slowest)")  # fmt: skip
    frames = exact_frames(arguments.frames)
    ours, theirs = contest("Ball in a room, exact depth", frames, True, arguments.repeats)
    errors(ours, theirs, frames)
    if arguments.data is not None:
        frames = real_frames(arguments.data)
        ours, theirs = contest(arguments.data.name, frames, False, arguments.repeats)
        if arguments.picture is not None:
            draw(arguments.picture, ours, theirs, frames[len(frames) // 2].pose)


if __name__ == "__main__":
    main()
