"""What happens to a radiance field between the steps of its training."""

from sparse3d.engine.loop import Hook, Trainer
from sparse3d.engine.schedule import LevelsConfig
from sparse3d.fields.build import Field
from sparse3d.fields.low_rank import LowRankField
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.geometry.cameras import Cameras
from sparse3d.recipes.radiance.batches import PixelLoader
from sparse3d.recipes.radiance.bounds import seen_voxels
from sparse3d.recipes.radiance.config import RadianceConfig
from sparse3d.recipes.radiance.lessons import LessonLoader
from sparse3d.recipes.radiance.model import FieldModel


class Refine(Hook):
    """Takes the batches of the level. Drops the voxels that no photo shows, or too few (with `cameras` of
    photos), splits the others where levels begin, and drops the empty ones now and then. A low-rank field
    grows where levels begin."""

    def __init__(self, config: RadianceConfig, loader: PixelLoader | LessonLoader, cameras: Cameras | None):
        self.config, self.loader, self.cameras = config, loader, cameras

    def before_train(self, trainer: Trainer) -> None:
        self._take_level(trainer)
        field = _field(trainer)
        if trainer.step == 0 and isinstance(field, VoxelField) and self.cameras is not None:
            if field.keep(seen_voxels(field, self.cameras, self.config.refine.min_photos)):
                trainer.renew_optimizer()

    def after_step(self, trainer: Trainer) -> None:
        if trainer.step >= trainer.total_steps:
            return
        begins, field = trainer.step in self._begins(trainer), _field(trainer)
        if begins:
            self._take_level(trainer)
        if isinstance(field, VoxelField):
            self._refine(trainer, field, begins)
        elif isinstance(field, LowRankField) and begins:
            field.grow()
            trainer.renew_optimizer()

    def _refine(self, trainer: Trainer, field: VoxelField, begins: bool) -> None:
        refine, dropped = self.config.refine, 0
        if begins:
            field.grow()
        if begins or (trainer.step - self._begin(trainer)) % refine.prune_every == 0:
            dropped = field.prune(refine.prune_alpha)
        if begins or dropped:
            trainer.renew_optimizer()

    def _begins(self, trainer: Trainer) -> list[int]:
        schedule = self.config.schedule
        return schedule.steps(trainer.total_steps)[1:] if isinstance(schedule, LevelsConfig) else []

    def _begin(self, trainer: Trainer) -> int:
        return max((step for step in self._begins(trainer) if step <= trainer.step), default=0)

    def _take_level(self, trainer: Trainer) -> None:
        number = sum(step <= trainer.step for step in self._begins(trainer))
        self.loader.level = self.config.refine.levels[number]


class Advance(Hook):
    """Tells the field and its background before each step how far the training is. A run that is resumed was
    told when the step before ended."""

    def before_train(self, trainer: Trainer) -> None:
        if trainer.step == 0:
            self._advance(trainer)

    def after_step(self, trainer: Trainer) -> None:
        if trainer.step < trainer.total_steps:
            self._advance(trainer)

    def _advance(self, trainer: Trainer) -> None:
        progress, model = trainer.step / trainer.total_steps, trainer.model
        assert isinstance(model, FieldModel)
        model.field.advance(progress, trainer.step)
        if model.background is not None:
            model.background.advance(progress)


def _field(trainer: Trainer) -> Field:
    assert isinstance(trainer.model, FieldModel)
    return trainer.model.field
