"""Watch Gaussians learn a scene from 50 photos.

    python demos/train_splats/run.py [--method surfels] [--headless out.png]

The window shows the cloud while it is trained; the picture, a view that training never sees. The scene is
generated, so that it is known: three textured spheres.
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from sparse3d.data.three_spheres import LAMP, ThreeSpheresConfig, write_three_spheres
from sparse3d.engine.loop import Hook, Trainer
from sparse3d.evaluation.images import psnr
from sparse3d.gaussians.geometry import render_geometry
from sparse3d.gaussians.render import SplatView, render
from sparse3d.recipes import tasks
from sparse3d.recipes.radiance.reconstruct import photos_of_split
from sparse3d.recipes.splatting.model import SplatTraining
from sparse3d.recipes.splatting.reconstruct import train
from sparse3d.viewers.exhibit import Exhibit, Viewpoint
from sparse3d.viewers.stage import Stage, demo_arguments

VIEW = Viewpoint((1.1, 1.3, 1.2), (0.0, -0.05, 0.03))
WHITE = (255, 255, 255)


class Watch(Hook):
    """Draws the view held out at some steps, and lets the window follow."""

    def __init__(
        self, stage: Stage, view: SplatView, photo: torch.Tensor, steps: tuple[int, ...], every: int
    ):
        self.stage, self.view, self.photo, self.steps, self.every = stage, view, photo, steps, every

    def before_train(self, trainer: Trainer) -> None:
        self.after_step(trainer)

    @torch.no_grad()
    def after_step(self, trainer: Trainer) -> None:
        assert isinstance(trainer.model, SplatTraining)
        cloud = trainer.model.splats.cloud
        if trainer.step % self.every == 0:
            self.stage.show(Exhibit("", VIEW, splats=cloud, background=WHITE))
        if trainer.step in self.steps:
            drawn = (render_geometry if cloud.surfels else render)(cloud, self.view, torch.ones(3)).color
            decibels = psnr(drawn.numpy(), self.photo.numpy())
            caption = f"step {trainer.step}: {len(cloud)} Gaussians, {decibels:.1f} dB"
            self.stage.keep_picture(drawn.numpy(), caption)
        if not self.stage.is_open:
            trainer.stop("the window was closed")


def main() -> None:
    parser = demo_arguments("Train Gaussians on three spheres, and watch.")
    parser.add_argument("--method", choices=["splats", "surfels"], default="splats")
    parser.add_argument(
        "--steps", type=int, default=3000, help="(default: %(default)s; 6000 is the config's)"
    )
    arguments = parser.parse_args()
    steps = 20 if arguments.quick else arguments.steps
    stage = Stage(arguments.headless, panel=(360, 360))
    with TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        write_three_spheres(photos, ThreeSpheresConfig(views=8 if arguments.quick else 50, held_out=4))
        overrides = [f"data.root={photos}", f"train.steps={steps}", "data.background=white"]
        overrides += ["start.count=300"] if arguments.quick else []
        config = tasks.load(arguments.method, overrides)
        held_out = photos_of_split(replace(config.data, views=None), "test")
        row = int((held_out.cameras.origins @ LAMP).argmax())  # from the light side
        camera, photo = held_out.cameras[row], held_out.photo(row).over((1.0, 1.0, 1.0))
        photo = torch.from_numpy(photo).float()
        watch = Watch(
            stage,
            SplatView.of(camera, photo),
            photo,
            steps=(0, steps // 60, steps // 12, steps // 3, steps),
            every=max(1, steps // 150),
        )
        train(config, Path(folder) / "run", photos=photos_of_split(config.data, "train"), extra_hooks=[watch])
    stage.keep_picture(photo.numpy(), "the photo, which training never saw")
    stage.end()


if __name__ == "__main__":
    main()
