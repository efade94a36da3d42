"""`sparse3d view`: look at meshes, Gaussians, reconstructions, and point clouds with what is labelled in them
and what a model finds; in a window, in the browser, as a picture or as a page in one file."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparse3d.commands.parsing import Commands, add_command
from sparse3d.commands.talk import say

if TYPE_CHECKING:
    from PIL.Image import Image

    from sparse3d.commands.view_things import Gallery
    from sparse3d.viewers.exhibit import Exhibit
    from sparse3d.viewers.guard import GuardedServer
    from sparse3d.viewers.scene import Scene


def add(commands: Commands) -> None:
    """Register with the parser."""
    view = add_command(
        commands,
        "view",
        _run,
        "Look at meshes, Gaussians, reconstructions, and at clouds with a model's results.",
    )
    view.add_argument(
        "thing",
        metavar="THING",
        help="a mesh (.ply .obj .glb), Gaussians (.ply .splat .spz .sog ...), a cloud (.bin .pcd .ply .npy), "
        "a folder or data set of clouds, or a RUN, also one that is still going",
    )
    view.add_argument(
        "inputs",
        nargs="*",
        metavar="INPUT",
        help="with a RUN of a detector: clouds, folders (default: its val split)",
    )
    view.add_argument("--out", type=Path, metavar="PNG", help="write a picture; needs no display")
    view.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page that needs no server and no network"
    )
    view.add_argument("--browser", action="store_true", help="a page, for this machine alone")
    view.add_argument("--port", type=int, default=0, help="of the page (default: one that is free)")
    view.add_argument(
        "--host", default="127.0.0.1", help="serve the page there too, not encrypted (default: %(default)s)"
    )
    view.add_argument(
        "--up",
        choices=["x", "y", "z", "-x", "-y", "-z"],
        help="--up=-y, say (default: what is usual, or photos')",
    )
    view.add_argument(
        "--size", type=int, default=1600, metavar="P", help="pixels across the picture (default: %(default)s)"
    )
    view.add_argument("--frame", default="0", help="number or name of the first one (default: %(default)s)")
    view.add_argument(
        "--color", choices=["height", "intensity", "class"], help="(default: class where it is known)"
    )
    view.add_argument("--labels", type=Path, metavar="FILE", help="a SemanticKITTI .label of the cloud")
    view.add_argument("--columns", type=int, default=4, help="float32 values a point in .bin files")
    view.add_argument("--no-truth", action="store_true", help="without labelled boxes")
    view.add_argument("--data", metavar="DIR", help="with a RUN: a folder in place of its data.root")
    view.add_argument("--split", help="with a RUN: e.g. val, train (default: what it is judged on)")
    view.add_argument("--checkpoint", default="best", help="best, last or a step (default: %(default)s)")
    view.add_argument("--device", choices=["auto", "cpu", "cuda"], help="(default: as in training)")
    view.add_argument("--score", type=float, default=0.3, help="lowest score to show (default: %(default)s)")


def _run(arguments: argparse.Namespace) -> int:
    from sparse3d.commands.view_files import exhibit_of_file, kind_of
    from sparse3d.gaussians.formats.sog import META

    if not 0.0 <= arguments.score <= 1.0:
        raise ValueError(f"--score is {arguments.score}, expected a number from 0 to 1")
    if not 16 <= arguments.size <= 1 << 14:
        raise ValueError(f"--size is {arguments.size}, expected 16 to {1 << 14} pixels")
    asked = [name for name in ("out", "html", "browser") if getattr(arguments, name)]
    if len(asked) > 1:
        raise ValueError(
            f"--{asked[0]} and --{asked[1]}: a picture, a page in a file, or one that is served: choose one"
        )
    if arguments.out is not None and arguments.out.suffix.lower() != ".png":
        raise ValueError(f"{arguments.out}: the picture is a PNG, its name must end in .png")
    if arguments.html is not None and arguments.html.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{arguments.html}: the page's name must end in .html")
    thing = Path(arguments.thing).expanduser()
    if (thing / "config.yaml").is_file() and (shown := _reconstruction(arguments, thing)) is not None:
        return shown
    kind = kind_of(thing) if thing.is_file() or (thing / META).is_file() else "cloud"
    if kind == "cloud":
        return _clouds(arguments)
    return _exhibit(arguments, lambda: exhibit_of_file(thing, kind, arguments.up))


# ---- meshes and Gaussians ----------------------------------------------------------------------------------


def _exhibit(arguments: argparse.Namespace, make: Callable[[], "Exhibit"]) -> int:
    from sparse3d.errors import require_extra

    _check_alone(arguments)
    if arguments.out is not None:
        from sparse3d.viewers.still import draw_exhibit

        exhibit = make()
        _save(arguments.out, draw_exhibit(exhibit, _size(arguments)))
        say(f"{exhibit.contents}: {arguments.out}")
        return 0
    if arguments.html is not None:
        return _write_page(arguments.html, make())
    require_extra("viser", "viz")
    from sparse3d.viewers.exhibit_page import ExhibitServer

    exhibit = make()
    server = ExhibitServer(exhibit, arguments.port, arguments.host)
    say(exhibit.contents)
    return _serve(server)


def _check_alone(arguments: argparse.Namespace) -> None:
    if arguments.inputs:
        raise ValueError(f"{arguments.thing} is not a detector, to be applied to {arguments.inputs[0]}")


def _write_page(path: Path, exhibit: "Exhibit") -> int:
    from sparse3d.viewers.html_page import write_html

    size = write_html(path, exhibit)
    say(f"{exhibit.contents} in {size / 2**20:.1f} MiB: {path}")
    return 0


def _serve(server: "GuardedServer", wait: Callable[[], None] | None = None) -> int:
    from sparse3d.viewers.guard import LOOPBACK

    print(server.url, flush=True)
    where = "this machine alone" if server.host == LOOPBACK else "the network, which can read along"
    say(f"Ctrl-C ends it; who has this address sees the page, from {where}")
    try:
        (wait or server.wait)()
    finally:
        server.close()
    return 0


def _size(arguments: argparse.Namespace) -> tuple[int, int]:
    return arguments.size, round(arguments.size * 9 / 16)


def _save(path: Path, picture: "Image") -> None:
    from sparse3d.io.files import atomic_path

    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


# ---- reconstructions ---------------------------------------------------------------------------------------


def _reconstruction(arguments: argparse.Namespace, run: Path) -> int | None:
    """None for the run of another task."""
    from sparse3d.recipes.tasks import task_of_run

    if task_of_run(run).name not in ("radiance", "splatting"):
        return None
    from PIL import Image

    from sparse3d.commands import view_scenes
    from sparse3d.errors import require_extra

    _check_alone(arguments)
    shown = view_scenes.ShownRun(run, arguments.checkpoint, arguments.device, arguments.up, arguments.data)
    if arguments.out is not None:
        _save(arguments.out, Image.fromarray(view_scenes.picture_of_run(shown, _size(arguments))))
        say(f"written to {arguments.out}")
        return 0
    if arguments.html is not None:
        return _write_page(arguments.html, shown.show(mesh=True)[0])
    require_extra("viser", "viz")
    server = view_scenes.serve_run(shown, arguments.port, arguments.host)

    def show(first: bool) -> None:
        server.show(*shown.show(), stand=first)

    return _serve(server, lambda: shown.follow(server, show, _until_interrupted))


def _until_interrupted(seconds: float) -> bool:
    import time

    time.sleep(seconds)
    return False


# ---- clouds with boxes -------------------------------------------------------------------------------------


def _clouds(arguments: argparse.Namespace) -> int:
    from sparse3d.errors import require_extra

    if arguments.out is None and arguments.html is None:  # before a model is loaded for nothing
        require_extra("viser" if arguments.browser else "open3d", "viz")
    names, scene = _gallery(arguments)
    start = _number(arguments.frame, names)
    if arguments.out is not None:
        return _picture(arguments, scene(start))
    if arguments.html is not None:
        from sparse3d.viewers.exhibit import exhibit_of_scene

        exhibit = exhibit_of_scene(scene(start), arguments.color, not arguments.no_truth)
        return _write_page(arguments.html, exhibit)
    if arguments.browser:
        from sparse3d.viewers.browser import SceneServer

        server = SceneServer(len(names), scene, arguments.port, start, arguments.host)
        run = Path(arguments.thing).expanduser()
        if not (run / "config.yaml").is_file():
            return _serve(server)
        from sparse3d.commands.view_watch import WatchedRun

        watched = WatchedRun(run, arguments.checkpoint)
        server.losses.show(watched.curves())

        def show(first: bool) -> None:
            server.replace(_gallery(arguments).scene)

        return _serve(server, lambda: watched.follow(server, show, _until_interrupted))
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise ValueError("there is no display here; use --out picture.png, --html page.html or --browser")
    from sparse3d.viewers.window import KEYS, SceneWindow

    say(KEYS)
    SceneWindow(len(names), scene, start, color_by=arguments.color, truth=not arguments.no_truth).run()
    return 0


def _gallery(arguments: argparse.Namespace) -> "Gallery":
    from functools import lru_cache

    from sparse3d.commands.view_things import Gallery, clouds_of, files_gallery

    thing = Path(arguments.thing)
    if (thing / "config.yaml").is_file():
        from sparse3d.commands.view_runs import RunChoice, run_gallery

        choice = RunChoice(thing, arguments.checkpoint, arguments.device, arguments.score)
        found = run_gallery(choice, arguments.inputs, arguments.split, arguments.data, arguments.columns)
    elif arguments.inputs:
        raise ValueError(f"{thing} is not the folder of a run, to be applied to {arguments.inputs[0]}")
    else:
        found = files_gallery(clouds_of(thing), arguments.columns, arguments.labels)
    # Going back and forth, or changing colours, must not run the model again.
    return Gallery(found.names, lru_cache(maxsize=8)(found.scene))


def _number(wanted: str, names: Sequence[str]) -> int:
    if wanted in names:
        return list(names).index(wanted)
    if wanted.isdigit() and int(wanted) < len(names):
        return int(wanted)
    known = f"{names[0]} to {names[-1]}" if names else "the split is empty"
    raise ValueError(f"no frame {wanted!r}; there are {len(names)}: {known}")


def _picture(arguments: argparse.Namespace, scene: "Scene") -> int:
    from sparse3d.viewers.perspective import Camera, draw_scene

    camera = Camera(size=_size(arguments))
    picture = draw_scene(scene, arguments.color, camera, truth=not arguments.no_truth)
    _save(arguments.out, picture)
    say(f"{len(scene.points)} points, {len(scene.found.boxes)} objects found, written to {arguments.out}")
    return 0
