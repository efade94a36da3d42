"""What happens to a cloud between the steps of its training."""

from sparse3d.engine.loop import Hook, Trainer
from sparse3d.recipes.splatting.config import SplattingConfig
from sparse3d.recipes.splatting.model import SplatTraining


class Densify(Hook):
    """Lets the strategy count what was drawn, and change the cloud."""

    def __init__(self, config: SplattingConfig):
        self.strategy = config.strategy

    def before_train(self, trainer: Trainer) -> None:
        _model(trainer).step = trainer.step

    def after_step(self, trainer: Trainer) -> None:
        model = _model(trainer)
        model.step = trainer.step
        if trainer.step < trainer.total_steps and model.seen is not None:
            self.strategy.after_step(model.splats, trainer.optimizer, trainer.step, [model.seen])
        model.seen = None


def _model(trainer: Trainer) -> SplatTraining:
    assert isinstance(trainer.model, SplatTraining)
    return trainer.model
