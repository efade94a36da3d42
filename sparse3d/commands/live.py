"""A page that shows a reconstruction while it is trained: `sparse3d reconstruct ... --view`.

Everything happens between steps, in the thread that trains: kernels of two threads at once are more than some
of numba's threading layers take. Nothing of the training is changed: what is drawn has no gradient and draws
no random numbers, so the parameters come out with the same bits as without a page.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from sparse3d.commands.view_scenes import BLANK, exhibit_of_loaded, quickly, sight_of, stand_of, waiting
from sparse3d.data.photos import PosedPhotos
from sparse3d.engine.loop import Hook, Trainer
from sparse3d.engine.seed import isolated_rng
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.recipes.radiance.config import RadianceConfig
from sparse3d.recipes.radiance.model import FieldModel
from sparse3d.recipes.radiance.reconstruct import LoadedField
from sparse3d.recipes.scenes import Loaded, scene_of
from sparse3d.recipes.splatting.config import SplattingConfig
from sparse3d.recipes.splatting.model import SplatTraining
from sparse3d.recipes.splatting.reconstruct import LoadedCloud
from sparse3d.viewers.exhibit_page import ExhibitServer
from sparse3d.viewers.guard import LOOPBACK
from sparse3d.viewers.panel import Curve

SHARE = 0.2  # of the time that may go into showing the training
EVERY = 2.0  # seconds from one state to the next that is shown
_MOST_ROWS = 300  # of pictures of a field
_MOST_CURVE_POINTS = 1000


class ShowLive(Hook):
    """Serves the page from now to the end of the training; who looks sees the state of a few seconds ago, and
    the losses."""

    def __init__(
        self,
        config: RadianceConfig | SplattingConfig,
        photos: PosedPhotos,
        title: str,
        port: int = 0,
        host: str = LOOPBACK,
    ):
        self.config, self.photos, self.title = config, photos, title
        objects = isinstance(config, SplattingConfig)
        self.server = ExhibitServer(waiting(title), port, host, BLANK, objects, threaded=False)
        assert self.server.pictures is not None
        self.pictures = self.server.pictures
        self.pictures.most = _MOST_ROWS
        self._steps: list[int] = []
        self._losses: dict[str, list[float]] = defaultdict(list)
        self._begun = self._shown = self._spent = 0.0

    def before_train(self, trainer: Trainer) -> None:
        self._begun = time.perf_counter()
        self._show(trainer, first=True)

    def after_step(self, trainer: Trainer) -> None:
        assert trainer.report is not None
        self._steps.append(trainer.step)
        for name, value in {"loss": trainer.report.total, **trainer.report.losses}.items():
            self._losses[name].append(value)
        now = time.perf_counter()
        if self._spent > SHARE * (now - self._begun):
            return
        if now - self._shown > EVERY:
            self._show(trainer)
        with _leaving_no_trace(trainer):
            self.pictures.draw_next()
        self._spent += time.perf_counter() - now

    def after_train(self, trainer: Trainer) -> None:
        self._show(trainer)

    def close(self) -> None:
        self.server.close()

    def _show(self, trainer: Trainer, first: bool = False) -> None:
        """The present state, for whoever looks."""
        with _leaving_no_trace(trainer):
            loaded = quickly(_loaded(self.config, trainer))
            scene = scene_of(loaded)
            stand = stand_of(self.config.data, scene.middle, self.photos)
            exhibit = exhibit_of_loaded(self.title, loaded, scene, stand)
            self.server.show(exhibit, sight_of(scene, stand.background), stand=first)
        thin = max(1, -(-len(self._steps) // _MOST_CURVE_POINTS))
        # Terms that begin later have fewer values: those that were there from the first step on are shown.
        names = [name for name, values in self._losses.items() if len(values) == len(self._steps)]
        steps = np.array(self._steps[::thin])
        self.server.losses.show([Curve(name, steps, np.array(self._losses[name][::thin])) for name in names])
        self.server.note(f"step {trainer.step} of {trainer.total_steps}")
        self._shown = time.perf_counter()


def _loaded(config: RadianceConfig | SplattingConfig, trainer: Trainer) -> Loaded:
    """What is trained, as it were when it had been read from a checkpoint of this step; a field is the one
    that is trained itself, a cloud a copy."""
    name, model = Path(f"step_{trainer.step:08d}"), trainer.model
    if isinstance(config, SplattingConfig):
        assert isinstance(model, SplatTraining)
        parts = {key: part.detach() for key, part in model.splats.cloud.parameters().items()}
        return LoadedCloud(config, GaussianCloud.of(parts).to("cpu", copy=True), name)
    assert isinstance(model, FieldModel)
    return LoadedField(config, model.field, None, name, model.background)


@contextmanager
def _leaving_no_trace(trainer: Trainer) -> Iterator[None]:
    """No gradients, no random numbers that are missed later, and the model as it was."""
    trainer.model.eval()
    try:
        with torch.no_grad(), isolated_rng():
            yield
    finally:
        trainer.model.train()
