"""A hook for tests of runs that are continued."""

from sparse3d.engine.loop import Hook


class StopAt(Hook):
    """Ends a run cleanly after a step, as its time or a signal would."""

    def __init__(self, step):
        self.step = step

    def after_step(self, trainer):
        if trainer.step == self.step:
            trainer.stop("stopped by the test")
