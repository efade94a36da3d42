"""Small folders of posed photos in the layouts of others, written by hand; and the cameras that they show.

All of them show the same world from the same cameras: a camera on a ring looks at the origin, so that tests
can ask every reader for the same poses."""

import json
import struct
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


def world_to_camera(pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """COLMAP's quaternion (w, x, y, z) and translation of a camera-to-world pose."""
    rotation = pose[:3, :3].T
    # The eigenvector of this matrix with the largest eigenvalue is the quaternion (Bar-Itzhack 2000).
    (a, b, c), (d, e, f), (g, h, i) = rotation
    k = np.array(
        [
            [a - e - i, d + b, g + c, h - f],
            [d + b, e - a - i, h + f, c - g],
            [g + c, h + f, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    x, y, z, w = np.linalg.eigh(k / 3)[1][:, -1]
    return np.array([w, x, y, z]), -rotation @ pose[:3, 3]


# Number, parameters after the focal lengths and the principal point.
COLMAP_LENSES = {
    "SIMPLE_PINHOLE": (0, 1, ()),
    "PINHOLE": (1, 2, ()),
    "SIMPLE_RADIAL": (2, 1, (0.1,)),
    "RADIAL": (3, 1, (0.1, -0.02)),
    "OPENCV": (4, 2, (0.1, -0.02, 0.003, -0.004)),
    "OPENCV_FISHEYE": (5, 2, (0.1, -0.02, 0.003, -0.004)),
    "FULL_OPENCV": (6, 2, (0.1, -0.02, 0.003, -0.004, 0.05, 0.06, 0.07, 0.08)),
    "SIMPLE_RADIAL_FISHEYE": (8, 1, (0.1,)),
    "RADIAL_FISHEYE": (9, 1, (0.1, -0.02)),
    "FOV": (7, 2, (0.1,)),
}
# Where the points of the model are, and which (image, feature) sees each.
POINTS = {7: ((0.1, 0.2, 0.3), ((1, 0), (3, 1))), 2: ((-0.4, 0.0, 0.2), ((1, 1), (2, 0), (3, 0)))}


def colmap_folder(root: Path, count: int = 3, model: str = "PINHOLE", binary: bool = True) -> Path:
    """sparse/0 and images/; image ids from 1, named from the last to the first; features see POINTS."""
    number, focals, rest = COLMAP_LENSES[model]
    values = [FOCAL, FOCAL + 1][:focals] + [11.5, 8.25, *rest]
    folder = root / "sparse" / "0"
    folder.mkdir(parents=True)
    features = {image: {} for image in range(1, count + 1)}
    for point, (_, track) in POINTS.items():
        for image, feature in track:
            features[image][feature] = (point, (image + 0.25, feature + 0.5))
    for image in features:
        write_image(root / "images" / f"{9 - image}.png", picture(image))
        features[image][len(features[image])] = (-1, (5.0, 6.0))
    rows = {}
    for image in features:
        quaternion, translation = world_to_camera(ring_pose(image / count))
        seen = [(*features[image][f][1], features[image][f][0]) for f in sorted(features[image])]
        rows[image] = ([*quaternion, *translation], f"{9 - image}.png", seen)
    if binary:
        data = struct.pack("<Q", 1) + struct.pack(f"<iiQQ{len(values)}d", 4, number, WIDTH, HEIGHT, *values)
        (folder / "cameras.bin").write_bytes(data)
        data = struct.pack("<Q", count)
        for image, (pose, name, seen) in rows.items():
            data += (
                struct.pack("<i7di", image, *pose, 4) + name.encode() + b"\0" + struct.pack("<Q", len(seen))
            )
            data += b"".join(struct.pack("<ddq", *feature) for feature in seen)
        (folder / "images.bin").write_bytes(data)
        data = struct.pack("<Q", len(POINTS))
        for point, (position, track) in POINTS.items():
            data += struct.pack("<Q3d3BdQ", point, *position, 10, 20, 30, 0.5, len(track))
            data += b"".join(struct.pack("<ii", *element) for element in track)
        (folder / "points3D.bin").write_bytes(data)
        return root
    words = " ".join(map(str, values))
    (folder / "cameras.txt").write_text(f"# Camera list\n4 {model} {WIDTH} {HEIGHT} {words}\n")
    lines = ["# Image list with two lines of data per image:"]
    for image, (pose, name, seen) in rows.items():
        lines += [f"{image} {' '.join(map(repr, map(float, pose)))} 4 {name}"]
        lines += [" ".join(f"{x} {y} {point}" for x, y, point in seen)]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    lines = [
        f"{point} {' '.join(map(str, position))} 10 20 30 0.5 " + " ".join(f"{i} {f}" for i, f in track)
        for point, (position, track) in POINTS.items()
    ]
    (folder / "points3D.txt").write_text("# 3D point list\n" + "\n".join(lines) + "\n")
    return root


def llff_folder(root: Path, count: int = 9, folder: str = "images_8", factor: int = 8) -> Path:
    """poses_bounds.npy for photos that are `factor` times as large as those in `folder`."""
    rows = []
    for number in range(count):
        write_image(root / folder / f"image{number:03d}.png", picture(number))
        right, down, forward, origin = ring_pose(number / count)[:3].T
        size = [HEIGHT * factor, WIDTH * factor, FOCAL * factor]
        matrix = np.stack([down, right, -forward, origin, size], 1)
        rows.append(np.concatenate([matrix.ravel(), [1.5, 9.0 + number]]))
    np.save(root / "poses_bounds.npy", np.array(rows))
    return root


def projection(pose: np.ndarray, shift: float = 0.0) -> np.ndarray:
    """P (3, 4) of the ring's camera, with the principal point moved by `shift`."""
    k = np.array([[FOCAL, 0, 11.5 + shift], [0, FOCAL + 1, 8.25 + shift], [0, 0, 1]])
    return k @ np.linalg.inv(pose)[:3]


SPHERE = np.array([[2.0, 0, 0, 0.5], [0, 2, 0, -1], [0, 0, 2, 3], [0, 0, 0, 1]])


def idr_folder(root: Path, numbers: list[int], matrices: int, masks: bool = True) -> Path:
    """cameras_sphere.npz, image/ and mask/. The ring stands in the frame of the unit sphere; the files' world
    is twice as large and lies elsewhere (SPHERE)."""
    arrays = {}
    for number in range(matrices):
        world = np.eye(4)
        # Pixel centres are whole numbers in these files, and P is known up to a factor.
        world[:3] = -3 * projection(ring_pose(number / matrices), -0.5) @ np.linalg.inv(SPHERE)
        arrays[f"world_mat_{number}"] = world.astype(np.float64)
        arrays[f"scale_mat_{number}"] = SPHERE
        arrays[f"world_mat_inv_{number}"] = np.linalg.inv(world)
    root.mkdir(parents=True, exist_ok=True)
    np.savez(root / "cameras_sphere.npz", **arrays)
    for number in numbers:
        write_image(root / "image" / f"{number:06d}.png", picture(number))
        if masks:
            write_image(root / "mask" / f"{number:03d}.png", picture(number) // 128 * 255)
    return root


def mvsnet_folder(root: Path, count: int) -> Path:
    (root / "cams").mkdir(parents=True)
    for number in range(count):
        write_image(root / "images" / f"{number:08d}.jpg", picture(number))
        lines = ["extrinsic"] + [" ".join(map(str, row)) for row in np.linalg.inv(ring_pose(number / count))]
        lines += ["", "intrinsic", f"{FOCAL} 0 11.5", f"0 {FOCAL + 1} 8.25", "0 0 1", "", "2.0 0.05 100 7.0"]
        (root / "cams" / f"{number:08d}_cam.txt").write_text("\n".join(lines))
    return root


def spare_folder(root: Path, scene: str, dtu: bool, hidden: list[int]) -> Path:
    """A scene with 3 input and 4 test views; the photos of `hidden` are not there."""
    entry = {"input_views": [5, 0, 3], "test_views": [1, 2, 4, 6], "dataset": "DTU" if dtu else "Synthetic"}
    root.mkdir(parents=True, exist_ok=True)
    (root / "Track1_split_test.json").write_text(json.dumps({scene: entry, "other": entry}))
    nine = entry | {"input_views": [5, 0, 3, 6, 1, 2, 7, 8, 9], "test_views": [4]}
    (root / "Track2_split_test.json").write_text(json.dumps({scene: nine}))
    for part in ("calibration_DTU", "calibration_synthetic"):
        for number in range(10):
            path = root / part / f"pos_{number + 1:03d}.txt"
            path.parent.mkdir(exist_ok=True)
            shift = -0.5 if "DTU" in part else 0.0
            matrix = projection(ring_pose(number / 10), shift)
            path.write_text("\n".join(" ".join(map(str, row)) for row in matrix))
    for number in range(10):
        name = f"rect_{number + 1:03d}_3_r5000.png" if dtu else f"cam_{number + 1:03d}_3_0000.png"
        if number not in hidden:
            write_image(root / scene / name, picture(number))
    return root / scene


def rgbd_folder(root: Path, count: int, lost: int | None = None) -> Path:
    k = f"{FOCAL} 0 11.5\n0 {FOCAL + 1} 8.25\n0 0 1\n"
    (root / "data").mkdir(parents=True)
    (root / "camera-intrinsics.txt").write_text(k)
    for number in range(count):
        stem = root / "data" / f"frame-{number * 10:06d}"
        write_image(stem.with_suffix(".color.png"), picture(number))
        write_image(stem.with_suffix(".depth.png"), np.full((HEIGHT, WIDTH), 1000 + number, np.uint16))
        pose = np.full((4, 4), -np.inf) if number == lost else ring_pose(number / count)
        stem.with_suffix(".pose.txt").write_text("\n".join(" ".join(map(str, row)) for row in pose))
    return root
