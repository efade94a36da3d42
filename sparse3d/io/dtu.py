"""DTU and what took over its layouts: cameras_sphere.npz of IDR and NeuS, and MVSNet's cam.txt files.

IDR's `world_mat_<i>` (4, 4) projects from the world to pixels, and `scale_mat_<i>` leads from a frame where
the object lies in the unit sphere to the world (Yariv et al., arXiv 2003.09852). We work in the frame of the
unit sphere; `original_from_world` leads back. DTU was calibrated with Bouguet's toolbox, whose pixel centres
are whole numbers: half a pixel is added to the principal point. MVSNet's files are written by many tools and
are taken as they stand.
"""

import re
import zipfile
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.rigid import inverse
from sparse3d.io.captures import Capture, Skipped, View, Withheld, checked_capture
from sparse3d.io.image_folders import image_folder, images_in, same_stem
from sparse3d.io.images import image_size
from sparse3d.io.reading import read_text

# Bouguet's toolbox counts pixel centres from 0.
HALF_PIXEL = 0.5

# More skew than this, in parts of the focal length, is no camera of ours; DTU has 1e-5.
_MOST_SKEW = 1e-3


def decompose_projection(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P (3, 4), up to any factor -> K (3, 3) with positive focal lengths and K[2, 2] = 1, and camera-to-world
    (4, 4). ValueError where P is not finite or has no camera centre."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all():
        raise ValueError("the projection matrix is not (3, 4) finite numbers")
    left = matrix[:, :3]
    determinant = np.linalg.det(left)
    if not abs(determinant) > 1e-12 * np.abs(left).max() ** 3:
        raise ValueError("the projection matrix has no camera centre (singular)")
    if determinant < 0:
        matrix, left = -matrix, -left
    # RQ by QR of the rows and columns turned around.
    q, r = np.linalg.qr(left[::-1].T)
    k, rotation = r.T[::-1, ::-1], q.T[::-1]
    sign = np.sign(np.diag(k))
    k, rotation = k * sign, sign[:, None] * rotation
    pose = np.eye(4)
    pose[:3, :3] = rotation.T
    pose[:3, 3] = -np.linalg.solve(left, matrix[:, 3])
    return k / k[2, 2], pose


def camera_of_projection(matrix: np.ndarray, size: tuple[int, int], shift: float) -> Camera:
    """The camera of P (3, 4) for an image of `size` (width, height), with `shift` added to the principal
    point. ValueError for what is none of ours."""
    k, pose = decompose_projection(matrix)
    if abs(k[0, 1]) > _MOST_SKEW * k[0, 0]:
        raise ValueError(f"the pixels are skewed by {k[0, 1]:g}; undistort the photos first")
    return Camera(k[0, 0], k[1, 1], k[0, 2] + shift, k[1, 2] + shift, *size, pose)


def read_idr(root: str | Path, scale: float = 1.0) -> Capture:
    """A folder with cameras_sphere.npz (or cameras.npz), image/000000.png .. and, where there, mask/000.png.
    The number in a photo's name says which matrices are its own. Matrices without a photo are listed in
    `skipped`, with their cameras in `withheld`."""
    root = Path(root)
    path = next((p for n in ("cameras_sphere", "cameras") if (p := root / f"{n}.npz").is_file()), None)
    if path is None:
        raise DataError(root, "no cameras_sphere.npz nor cameras.npz")
    matrices = _matrices(path)
    photos = {_number(photo): photo for photo in images_in(image_folder(root, scale, "image"))}
    masks = {_number(p): p for p in images_in(root / "mask")} if (root / "mask").is_dir() else {}
    if not photos:
        raise DataError(root / "image", "holds no photo")
    numbers = sorted(
        int(key.removeprefix("world_mat_")) for key in matrices if re.fullmatch(r"world_mat_\d+", key)
    )
    unknown = [photo.name for number, photo in photos.items() if number not in numbers]
    if unknown:
        raise DataError(path, f"has no world_mat for {', '.join(unknown[:5])}")
    common = matrices.get(f"scale_mat_{numbers[0]}", np.eye(4))
    size = image_size(next(iter(photos.values())))
    views, skipped, withheld = [], [], []
    for number in numbers:
        sphere = matrices.get(f"scale_mat_{number}", np.eye(4))
        if np.abs(sphere - common).max() > 1e-4 * np.abs(common).max():
            raise DataError(path, f"scale_mat_{number} differs from scale_mat_{numbers[0]}: no common sphere")
        photo = photos.get(number)
        try:
            projection = (matrices[f"world_mat_{number}"] @ sphere)[:3]
            camera = camera_of_projection(projection, image_size(photo) if photo else size, HALF_PIXEL)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(path, f"view {number}: {error}") from error
        if photo is None:
            skipped.append(Skipped(f"view {number}", "no photo"))
            withheld.append(Withheld(f"{number:06d}", number, camera))
            continue
        away = float(np.linalg.norm(camera.camera_to_world[:3, 3]))
        near_far = (max(away - 1, 0.01), away + 1)
        views.append(View(photo.name, photo, camera, number, mask=masks.get(number), near_far=near_far))
    capture = Capture(
        "dtu",
        tuple(views),
        tuple(skipped),
        box=np.array([[-1.0] * 3, [1.0] * 3]),
        original_from_world=common,
        withheld=tuple(withheld),
    )
    return checked_capture(root, capture)


def read_mvsnet(root: str | Path, scale: float = 1.0) -> Capture:
    """A folder with cams/00000000_cam.txt and images/ (or blended_images/) of the same numbers. A file holds
    "extrinsic" (4, 4) world-to-camera, "intrinsic" (3, 3), and nearest depth and step, where there also the
    number of steps and the farthest depth."""
    root = Path(root)
    folder = next((root / n for n in ("cams", "cameras", "Cameras") if (root / n).is_dir()), root / "cams")
    photos_in = root / "blended_images" if (root / "blended_images").is_dir() else image_folder(root, scale)
    views, skipped = [], []
    for path in sorted(folder.glob("*_cam.txt")):
        name = path.name.removesuffix("_cam.txt")
        photo = same_stem(photos_in, name)
        if photo is None:
            skipped.append(Skipped(name, f"not in {photos_in.name}"))
            continue
        extrinsic, k, depths = _mvsnet_numbers(path)
        try:
            pose = inverse(extrinsic)
            pose[3] = extrinsic[3]  # an inverse has 0 0 0 1 whatever the file says
            camera = Camera(k[0, 0], k[1, 1], k[0, 2], k[1, 2], *image_size(photo), pose)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(path, str(error)) from error
        near_far = None
        if len(depths) >= 4 and 0 < depths[0] < depths[3]:
            near_far = (depths[0], depths[3])
        mask = same_stem(root / "masks", name)
        views.append(View(photo.name, photo, camera, _number(path), mask=mask, near_far=near_far))
    return checked_capture(folder, Capture("mvsnet", tuple(views), tuple(skipped)))


def _mvsnet_numbers(path: Path) -> tuple[np.ndarray, np.ndarray, list[float]]:
    words = read_text(path).split()
    try:
        first, second = words.index("extrinsic"), words.index("intrinsic")
        numbers = [
            np.array(part, dtype=np.float64) for part in (words[first + 1 : second], words[second + 1 :])
        ]
        if len(numbers[0]) != 16 or len(numbers[1]) < 9 or not np.isfinite(np.concatenate(numbers)).all():
            raise ValueError(f"{len(numbers[0])} and {len(numbers[1])} numbers, expected 16 and at least 9")
    except ValueError as error:
        raise DataError(path, f'not a camera of MVSNet with "extrinsic" and "intrinsic": {error}') from error
    return numbers[0].reshape(4, 4), numbers[1][:9].reshape(3, 3), numbers[1][9:].tolist()


def _matrices(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            wanted = [name for name in stored.files if name.startswith(("world_mat_", "scale_mat_"))]
            matrices = {name: np.asarray(stored[name]) for name in wanted if "_inv_" not in name}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise DataError(path, f"not a whole .npz of plain numbers: {error}") from error
    if not any(name.startswith("world_mat_") for name in matrices):
        raise DataError(path, "has no world_mat_0, world_mat_1, ...")
    for name, matrix in matrices.items():
        if matrix.shape != (4, 4) or not np.issubdtype(matrix.dtype, np.floating):
            raise DataError(path, f"{name} is {matrix.dtype} {matrix.shape}, expected floats (4, 4)")
    return {name: matrix.astype(np.float64) for name, matrix in matrices.items()}


def _number(path: Path) -> int:
    """The first number in a file's name."""
    digits = re.search(r"\d+", path.name)
    if digits is None:
        raise DataError(path, "no number in its name, which would say which camera is its own")
    return int(digits[0])
