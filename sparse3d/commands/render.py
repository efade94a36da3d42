"""`sparse3d render`: pictures, depth, normals and videos of a reconstructed scene."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import Bar, say

if TYPE_CHECKING:
    from sparse3d.data.photos import PosedPhotos
    from sparse3d.recipes.pictures import Shot
    from sparse3d.recipes.scenes import ReconstructedScene

FRAMES_A_SECOND = 15
VIDEOS = (".mp4", ".webp", ".gif")
FRAMES = 60


def add(commands: Commands) -> None:
    """Register with the parser."""
    render = add_command(commands, "render", _run, "Pictures, depth and videos of a reconstructed scene.")
    render.add_argument("run_folder", metavar="RUN", help="folder of a reconstruction")
    where = render.add_mutually_exclusive_group()
    where.add_argument("--split", help="from the cameras of these photos, e.g. train (default: test)")
    where.add_argument("--turntable", type=int, metavar="N", help="N pictures on a way around the scene")
    where.add_argument(
        "--trajectory", metavar="PATH", help="orbit, spiral, or a .json file of cameras (nerfstudio's too)"
    )
    render.add_argument(
        "--frames", type=int, default=FRAMES, metavar="N", help="of orbit and spiral (default: %(default)s)"
    )
    render.add_argument(
        "--out",
        type=Path,
        metavar="OUT",
        help="a folder of frames, or a .mp4, .webp or .gif (default: RUN/pictures/SPLIT or /turntable)",
    )
    render.add_argument("--size", type=int, metavar="P", help="pixels of the longer side (default: photos')")
    render.add_argument(
        "--show",
        choices=["color", "depth", "normal"],
        default="color",
        help="what a video is of (default: %(default)s)",
    )
    render.add_argument(
        "--animation", choices=["webp", "gif"], default="webp", help="of a turntable (default: %(default)s)"
    )
    render.add_argument("--rate", type=float, default=FRAMES_A_SECOND, help="frames a second")
    render.add_argument("--checkpoint", default="last", help="best, last or a step (default: %(default)s)")
    render.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default: as in training)")
    render.add_argument("--data", metavar="DIR", help="a folder to use in place of the run's data.root")


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.recipes import pictures as recipe
    from sparse3d.recipes.scenes import load_run, scene_of

    if arguments.size is not None and arguments.size < 1:
        raise ValueError(f"--size {arguments.size}: a picture has at least one pixel")
    if not arguments.rate > 0:
        raise ValueError(f"--rate {arguments.rate}: there must be more than 0 frames a second")
    ending = "" if arguments.out is None else arguments.out.suffix.lower()
    video = ending in VIDEOS
    if ending == ".mp4":  # before a model is loaded for nothing
        from sparse3d.errors import require_extra

        require_extra("av", "video")
    scene = scene_of(load_run(arguments.run_folder, arguments.checkpoint, arguments.device))
    pictures = Path(arguments.run_folder) / "pictures"
    if arguments.turntable is not None and not video:
        folder = arguments.out or pictures / "turntable"
        photos = recipe.photos_of(scene, scene.data.split, arguments.data)
        write_turntable(scene, photos, folder, arguments.turntable, arguments.size, arguments.animation)
        return 0
    if arguments.trajectory is None and arguments.turntable is None:
        split = arguments.split or scene.split
        photos = recipe.photos_of(scene, split, arguments.data)
        shots, folder = recipe.shots_of_photos(photos, arguments.size), pictures / split
    else:
        trajectory, frames = arguments.trajectory or "orbit", arguments.turntable or arguments.frames
        photos = recipe.photos_of(scene, scene.data.split, arguments.data)
        shots = recipe.shots_along(trajectory, scene, photos, frames, arguments.size)
        folder = pictures / Path(trajectory).stem
    background = recipe.background_of(scene, photos)
    if video and arguments.out is not None:
        _write_film(scene, shots, background, arguments.out, arguments.show, arguments.rate)
    else:
        folder = arguments.out or folder
        _write_pictures(scene, shots, background, folder)
        say(f"{len(shots)} pictures with depth and normals in {folder}")
    return 0


def write_turntable(
    scene: "ReconstructedScene",
    photos: "PosedPhotos",
    folder: Path,
    frames: int,
    longer_side: int | None = None,
    animation: str = "webp",
) -> None:
    """Pictures on a way around the scene, as `photos` stand around it, and its colours and depth as
    animations that go on for ever."""
    from sparse3d.io.pictures import write_animation
    from sparse3d.recipes import pictures as recipe

    shots = recipe.shots_along("orbit", scene, photos, frames, longer_side)
    _write_pictures(scene, shots, recipe.background_of(scene, photos), folder)
    for kind, name in (("color", "turntable"), ("depth_preview", "turntable_depth")):
        paths = [folder / kind / f"{shot.name}.png" for shot in shots]
        write_animation(folder / f"{name}.{animation}", paths, 1 / FRAMES_A_SECOND)
    say(f"a turn in {frames} pictures: {folder / 'turntable'}.{animation}")


def _write_film(
    scene: "ReconstructedScene", shots: list["Shot"], background: Any, out: Path, kind: str, rate: float
) -> None:
    """The frames go to a folder that is removed in the end, so that memory does not grow with them."""
    import tempfile

    from sparse3d.io.pictures import write_animation
    from sparse3d.io.video import write_video

    kind = "depth_preview" if kind == "depth" else kind
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        _write_pictures(scene, shots, background, Path(folder))
        paths = [Path(folder) / kind / f"{shot.name}.png" for shot in shots]
        if out.suffix.lower() == ".mp4":
            write_video(out, paths, rate)
        else:
            write_animation(out, paths, 1 / rate)
    say(f"{len(shots)} frames, {len(shots) / rate:.1f} s: {out}")


def _write_pictures(scene: "ReconstructedScene", shots: list["Shot"], background: Any, folder: Path) -> None:
    """`color`, `depth` (16 bits, millimetres), `depth_preview` and `normal`, a file for each shot."""
    import numpy as np

    from sparse3d.io.pictures import write_depth, write_picture
    from sparse3d.recipes import pictures as recipe
    from sparse3d.viewers.colors import height_colors

    with Bar("rendering") as report:
        for number, (shot, picture) in enumerate(recipe.pictures(scene, shots, background), 1):
            near, far = recipe.depth_range(scene, shot.camera)
            known = np.isfinite(picture.depth)
            part = np.where(known, (far - picture.depth) / (far - near), 0)
            shaded = height_colors(part.ravel()).reshape(*part.shape, 3) / 255
            write_picture(folder / "color" / f"{shot.name}.png", picture.color)
            write_depth(folder / "depth" / f"{shot.name}.png", picture.depth)
            write_picture(folder / "depth_preview" / f"{shot.name}.png", shaded * known[..., None])
            write_picture(folder / "normal" / f"{shot.name}.png", np.nan_to_num(picture.normal / 2 + 0.5))
            report(number, len(shots))
