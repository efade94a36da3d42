"""`sparse3d render`: pictures, depth and a turntable of a trained field."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import Bar, say

if TYPE_CHECKING:
    from sparse3d.recipes.radiance.pictures import Shot
    from sparse3d.recipes.radiance.reconstruct import LoadedField

FRAMES_A_SECOND = 15


def add(commands: Commands) -> None:
    """Register with the parser."""
    render = add_command(commands, "render", _run, "Pictures and depth of a reconstructed scene.")
    render.add_argument("run_folder", metavar="RUN", help="folder of a reconstruction")
    where = render.add_mutually_exclusive_group()
    where.add_argument("--split", help="from the cameras of these photos, e.g. train (default: test)")
    where.add_argument("--turntable", type=int, metavar="N", help="N pictures on a way around the scene")
    render.add_argument("--out", type=Path, metavar="DIR", help="(default: RUN/pictures/SPLIT or /turntable)")
    render.add_argument("--size", type=int, metavar="P", help="pixels of the longer side (default: photos')")
    render.add_argument(
        "--animation", choices=["webp", "gif"], default="webp", help="of a turntable (default: %(default)s)"
    )
    render.add_argument("--checkpoint", default="last", help="best, last or a step (default: %(default)s)")
    render.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default: as in training)")
    render.add_argument("--data", metavar="DIR", help="a folder to use in place of the run's data.root")


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.recipes.radiance import pictures as recipe
    from sparse3d.recipes.radiance import reconstruct as radiance

    if arguments.size is not None and arguments.size < 1:
        raise ValueError(f"--size {arguments.size}: a picture has at least one pixel")
    loaded = radiance.load_field(arguments.run_folder, arguments.checkpoint, arguments.device)
    if arguments.turntable is not None:
        folder = arguments.out or Path(arguments.run_folder) / "pictures" / "turntable"
        write_turntable(
            loaded, folder, arguments.turntable, arguments.size, arguments.animation, arguments.data
        )
        return 0
    split = arguments.split or loaded.config.evaluation.split
    photos = recipe.photos_of(loaded, split, arguments.data)
    folder = arguments.out or Path(arguments.run_folder) / "pictures" / split
    shots = recipe.shots_of_photos(photos, arguments.size)
    _write_pictures(loaded, shots, recipe.background_of(loaded, photos), folder)
    say(f"{len(shots)} pictures with depth in {folder}")
    return 0


def write_turntable(
    loaded: "LoadedField",
    folder: Path,
    frames: int,
    longer_side: int | None = None,
    animation: str = "webp",
    data_root: str | None = None,
) -> None:
    """Pictures and depth on a way around the scene, and both as animations that go on for ever."""
    from sparse3d.io.pictures import write_animation
    from sparse3d.recipes.radiance import pictures as recipe

    photos = recipe.photos_of(loaded, loaded.config.data.split, data_root)
    shots = recipe.shots_around(loaded, photos, frames, longer_side)
    _write_pictures(loaded, shots, recipe.background_of(loaded, photos), folder)
    for kind, name in (("color", "turntable"), ("depth_preview", "turntable_depth")):
        paths = [folder / kind / f"{shot.name}.png" for shot in shots]
        write_animation(folder / f"{name}.{animation}", paths, 1 / FRAMES_A_SECOND)
    say(f"a turn in {frames} pictures: {folder / 'turntable'}.{animation}")


def _write_pictures(loaded: "LoadedField", shots: list["Shot"], background: Any, folder: Path) -> None:
    """`color`, `depth` (16 bits, millimetres) and `depth_preview`, a file for each shot."""
    import numpy as np

    from sparse3d.io.pictures import write_depth, write_picture
    from sparse3d.recipes.radiance import pictures as recipe
    from sparse3d.viewers.colors import height_colors

    with Bar("rendering") as report:
        pictures = recipe.pictures(loaded, shots, background)
        for number, (shot, picture) in enumerate(pictures, 1):
            near, far = recipe.depth_range(loaded, shot.camera)
            known = np.isfinite(picture.depth)
            part = np.where(known, (far - picture.depth) / (far - near), 0)
            shaded = height_colors(part.ravel()).reshape(*part.shape, 3) / 255
            write_picture(folder / "color" / f"{shot.name}.png", picture.color)
            write_depth(folder / "depth" / f"{shot.name}.png", picture.depth)
            write_picture(folder / "depth_preview" / f"{shot.name}.png", shaded * known[..., None])
            report(number, len(shots))
