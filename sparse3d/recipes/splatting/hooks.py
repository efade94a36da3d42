"""What happens to clouds between the steps of their training."""

from sparse3d.engine.loop import Hook, Trainer
from sparse3d.gaussians.few_views import has_counterpart
from sparse3d.recipes.splatting.config import SplattingConfig
from sparse3d.recipes.splatting.model import SplatTraining


class Densify(Hook):
    """Lets the strategy count what was drawn, and change the cloud. Of two clouds drops now and then what
    only one of them has."""

    def __init__(self, config: SplattingConfig):
        self.strategy = config.strategy

    def before_train(self, trainer: Trainer) -> None:
        _model(trainer).step = trainer.step

    def after_step(self, trainer: Trainer) -> None:
        model = _model(trainer)
        model.step = trainer.step
        if trainer.step < trainer.total_steps:
            for splats, seen in model.seen:
                self.strategy.after_step(splats, trainer.optimizer, trainer.step, [seen])
            self._compare(trainer, model)
        model.seen = []

    def _compare(self, trainer: Trainer, model: SplatTraining) -> None:
        co = model.priors.co
        if co is None or trainer.step <= co.start_step or trainer.step % co.prune_every:
            return
        one, other = model.clouds
        within = co.apart * float(one.scene_scale)
        kept = (
            has_counterpart(one.means, other.means, within),
            has_counterpart(other.means, one.means, within),
        )
        for splats, rows in zip((one, other), kept, strict=True):
            if rows.any() and not rows.all():
                splats.keep(trainer.optimizer, rows)


def _model(trainer: Trainer) -> SplatTraining:
    assert isinstance(trainer.model, SplatTraining)
    return trainer.model
