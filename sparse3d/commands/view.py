"""`sparse3d view`: look at point clouds, with what is labelled in them and what a model finds."""

import argparse
import os
import sys
from pathlib import Path

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import say


def add(commands: Commands) -> None:
    """Register with the parser."""
    view = add_command(commands, "view", _run, "Look at point clouds, their labels and a model's results.")
    view.add_argument(
        "thing", metavar="THING", help="a cloud (.bin .pcd .ply .npy), a folder or data set of them, or a RUN"
    )
    view.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="with a RUN: clouds, folders (default: its val split)",
    )
    view.add_argument("--out", type=Path, metavar="PNG", help="write a picture; needs no display")
    view.add_argument("--browser", action="store_true", help="a page in the browser, on this machine alone")
    view.add_argument("--port", type=int, default=0, help="of the page (default: one that is free)")
    view.add_argument("--frame", default="0", help="number or name of the first one (default: %(default)s)")
    view.add_argument(
        "--color", choices=["height", "intensity", "class"], help="(default: class where it is known)"
    )
    view.add_argument("--labels", type=Path, metavar="FILE", help="a SemanticKITTI .label of the cloud")
    view.add_argument("--columns", type=int, default=4, help="float32 values a point in .bin files")
    view.add_argument("--no-truth", action="store_true", help="without labelled boxes")
    view.add_argument("--split", help="with a RUN: e.g. val, train (default: what it is judged on)")
    view.add_argument("--checkpoint", default="best", help="best, last or a step (default: %(default)s)")
    view.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default: as in training)")
    view.add_argument("--score", type=float, default=0.3, help="lowest score to show (default: %(default)s)")


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.errors import require_extra

    if not 0.0 <= arguments.score <= 1.0:
        raise ValueError(f"--score is {arguments.score}, expected a number from 0 to 1")
    if arguments.out is not None and arguments.browser:
        raise ValueError("--out writes a picture, --browser opens a page: choose one")
    if arguments.out is None:  # before a model is loaded for nothing
        require_extra("viser" if arguments.browser else "open3d", "viz")
    clouds, scene = _scenes(arguments)
    start = _number(arguments.frame, clouds)
    if arguments.out is not None:
        return _picture(arguments, scene(start))
    if arguments.browser:
        from sparse3d.viewers.browser import SceneServer

        shown = SceneServer(len(clouds), scene, arguments.port, start)
        print(shown.url, flush=True)
        say("Ctrl-C ends it; who has this address sees the page, from this machine alone")
        shown.wait()
        return 0
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError("there is no display here; use --out picture.png, or --browser")
    from sparse3d.viewers.window import KEYS, SceneWindow

    say(KEYS)
    SceneWindow(len(clouds), scene, start, color_by=arguments.color, truth=not arguments.no_truth).run()
    return 0


def _scenes(arguments: argparse.Namespace):
    """The clouds, and what is to be seen of each: read, and judged by the model, when it is asked for."""
    from functools import lru_cache

    from sparse3d.commands.view_things import clouds_of, predictor, read_scene, run_clouds
    from sparse3d.viewers.scene import Scene

    thing = Path(arguments.thing)
    predict = None
    if (thing / "config.yaml").is_file():
        named = [cloud for given in arguments.inputs for cloud in clouds_of(given)]
        clouds = named or run_clouds(thing, arguments.split)
        predict = predictor(thing, arguments.checkpoint, arguments.device, arguments.score)
    elif arguments.inputs:
        raise ValueError(
            f"{thing} is not the folder of a run, so it cannot be applied to {arguments.inputs[0]}"
        )
    else:
        clouds = clouds_of(thing)
    if arguments.labels is not None and len(clouds) > 1:
        raise ValueError(f"--labels is for one cloud, and there are {len(clouds)}")

    @lru_cache(maxsize=8)
    def scene(number: int) -> Scene:
        read = read_scene(clouds[number], arguments.columns, arguments.labels)
        return read if predict is None else predict(clouds[number], read)

    return clouds, scene


def _number(wanted: str, clouds: list[Path]) -> int:
    names = [cloud.stem for cloud in clouds]
    if wanted in names:
        return names.index(wanted)
    if wanted.isdigit() and int(wanted) < len(clouds):
        return int(wanted)
    raise ValueError(f"no frame {wanted!r}; there are {len(clouds)}: {names[0]} to {names[-1]}")


def _picture(arguments: argparse.Namespace, scene) -> int:
    from sparse3d.io.files import atomic_path
    from sparse3d.viewers.perspective import draw_scene

    if arguments.out.suffix.lower() != ".png":
        raise ValueError(f"{arguments.out}: the picture is a PNG, its name must end in .png")
    picture = draw_scene(scene, arguments.color, truth=not arguments.no_truth)
    with atomic_path(arguments.out) as temporary:
        picture.save(temporary, format="PNG")
    say(f"{len(scene.points)} points, {len(scene.found.boxes)} objects found, written to {arguments.out}")
    return 0
