"""Small folders of posed photos in the layouts of others, written by hand; and the cameras that they show.

All of them show the same world from the same cameras: a camera on a ring looks at the origin, so that tests
can ask every reader for the same poses."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, FOCAL = 24, 16, 30.0


def ring_pose(place: float, radius: float = 3.0, height: float = 1.0) -> np.ndarray:
    """(4, 4) camera-to-world with OpenCV's axes, at `place` turns around the z axis, looking at 0."""
    origin = np.array([radius * np.cos(2 * np.pi * place), radius * np.sin(2 * np.pi * place), height])
    forward = -origin / np.linalg.norm(origin)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :4] = np.stack([right, np.cross(forward, right), forward, origin], 1)
    return pose


def to_opengl(pose: np.ndarray) -> np.ndarray:
    """The same camera as Blender writes it: y up, looking along -z."""
    return pose * np.array([1, -1, -1, 1])


def picture(number: int, width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> np.ndarray:
    """(height, width, channels) uint8, another one for each number, with opaque and clear pixels."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, channels), dtype=np.uint8)
    if channels == 4:
        pixels[..., 3] = np.where(np.arange(width) < width // 2, 255, pixels[..., 3])
        pixels[0, :, 3] = 0
    return pixels


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def transforms_folder(
    root: Path, count: int = 9, missing: tuple[int, ...] = (), frame: dict | None = None, **head
) -> Path:
    """images/0000.png .. and transforms.json as instant-ngp has it; `head` and `frame` add to the tables."""
    frames = []
    for number in range(count):
        name = f"images/{number:04d}.png"
        if number not in missing:
            write_image(root / name, picture(number))
        pose = to_opengl(ring_pose(number / count))
        frames.append({"file_path": name, "transform_matrix": pose.tolist()} | (frame or {}))
    table = {"fl_x": FOCAL, "fl_y": FOCAL + 1, "cx": 11.5, "cy": 8.25, "w": WIDTH, "h": HEIGHT} | head
    table = {key: value for key, value in table.items() if value is not None}
    root.mkdir(parents=True, exist_ok=True)
    (root / "transforms.json").write_text(json.dumps(table | {"frames": frames}))
    return root


def blender_folder(root: Path, counts: dict[str, int], missing: tuple[str, ...] = ()) -> Path:
    """NeRF-synthetic: a file a split, RGBA, names without .png."""
    for split, count in counts.items():
        frames = []
        for number in range(count):
            name = f"{split}/r_{number}"
            if name not in missing:
                write_image(root / f"{name}.png", picture(number, channels=4))
            matrix = to_opengl(ring_pose(number / count)).tolist()
            frames.append({"file_path": f"./{name}", "rotation": 0.01, "transform_matrix": matrix})
        table = {"camera_angle_x": 2 * np.arctan(0.5 * WIDTH / FOCAL), "frames": frames}
        (root / f"transforms_{split}.json").write_text(json.dumps(table))
    return root


def tiny_nerf_file(root: Path, count: int) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    images = np.stack([picture(number) for number in range(count)])
    poses = np.stack([to_opengl(ring_pose(number / count)) for number in range(count)]).astype(np.float32)
    np.savez(root / "tiny.npz", images=images, poses=poses, focal=np.array(FOCAL))
    return root
