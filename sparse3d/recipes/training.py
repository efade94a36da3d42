"""What trainings have in common: a run folder, data that one process prepares, hooks, and going on from the
last checkpoint."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from sparse3d.data.loader import FrameDataset, make_loader
from sparse3d.engine import distributed, hooks
from sparse3d.engine.checkpoint import load_weights, read_checkpoint
from sparse3d.engine.loop import Hook, Trainer
from sparse3d.engine.progress import ShowProgress, WriteMetrics
from sparse3d.engine.seed import seed_everything, use_deterministic_algorithms
from sparse3d.engine.state import restore
from sparse3d.nn.threads import one_torch_thread
from sparse3d.recipes.detection_config import DetectionConfig
from sparse3d.recipes.radiance.config import RadianceConfig
from sparse3d.recipes.run_folder import RunFolder
from sparse3d.recipes.segmentation_config import SegmentationConfig
from sparse3d.recipes.splatting.config import SplattingConfig

Config = DetectionConfig | SegmentationConfig
Metrics = Callable[[nn.Module], Mapping[str, float] | None]  # None in all but the first of several processes


class TrainOutcome(NamedTuple):
    """Where the run is, and why it ended: "finished" or the reason of a clean stop.

    `is_main` is False in all but the first of several processes: they have nothing to tell.
    """

    run: Path
    ended: str
    is_main: bool


@dataclass(frozen=True)
class FrameTask:
    """What is special to a task; each is called once, in this order."""

    prepare: Callable[[], None]  # makes data that are missing; in the first process alone
    dataset: Callable[[], FrameDataset]  # what is trained on; in the first process before the others
    model: Callable[[], nn.Module]  # freshly initialised, after the seeds are set
    metrics: Callable[[], Metrics]  # opens the data to judge on, and says how
    best: str  # the metric by which the best checkpoint is the best


def train_on_frames(
    config: Config,
    task: FrameTask,
    out: str | Path,
    resume: bool = False,
    if_begun: bool = False,
    extra_hooks: Sequence[Hook] = (),
) -> TrainOutcome:
    """Train into the run folder `out`; `resume` continues the run in it, bit for bit. With `if_begun` a run
    is continued if there is one, and else started; so is one whose processes torchrun had to start again.
    Under torchrun all processes train together.
    """
    run = RunFolder(out, config.checkpoint.keep)
    with distributed.process_group(config.train.device) as device:
        with distributed.main_first():  # it generates data, and writes the index and the object database
            if distributed.is_main():
                run.start(config, resume, if_begun or distributed.is_restart())
                task.prepare()
            dataset = task.dataset()
        if config.train.deterministic:
            use_deterministic_algorithms()
        seed_everything(config.train.seed, distributed.rank())
        trainer = Trainer(
            task.model(),
            make_loader(
                dataset,
                config.loader.batch_size,
                workers=config.loader.workers,
                shuffle=True,
                seed=config.train.seed,
                drop_last=config.loader.drop_last,
                rank=distributed.rank(),
                world_size=distributed.world_size(),
            ),
            config.train,
            config.optimizer,
            config.schedule,
            hooks=[
                hooks.Evaluate(task.metrics(), config.evaluation.every_epochs),
                *keeping(config, run, task.best),
                *extra_hooks,
            ],
            device=device,
        )
        # A run that starts has none; the first process says which one all of them continue from.
        if (last := distributed.from_main(run.checkpoints.last())) is not None:
            restore(trainer, read_checkpoint(last), last)
        return TrainOutcome(run.path, trainer.train(), distributed.is_main())


@contextmanager
def one_process(config: RadianceConfig | SplattingConfig) -> Iterator[torch.device]:
    """The device of a training in one process; ValueError under torchrun."""
    with distributed.process_group(config.train.device) as device:
        if distributed.world_size() > 1:
            raise ValueError("what changes its shape trains in one process; start without torchrun")
        yield device


def begin_alone(
    config: RadianceConfig | SplattingConfig, run: RunFolder, resume: bool, if_begun: bool
) -> None:
    """The run folder and the seeds of a training in `one_process`."""
    run.start(config, resume, if_begun)
    if config.train.deterministic:
        use_deterministic_algorithms()
    seed_everything(config.train.seed, 0)


def train_alone(trainer: Trainer, run: RunFolder) -> TrainOutcome:
    """Go on from the last checkpoint, if there is one; the same bits for any number of threads."""
    if (last := run.checkpoints.last()) is not None:
        restore(trainer, read_checkpoint(last), last)
    with one_torch_thread():
        return TrainOutcome(run.path, trainer.train(), True)


def keeping(config: Config | RadianceConfig | SplattingConfig, run: RunFolder, best: str) -> list[Hook]:
    """What any run does beside its steps: metrics, progress, an end in time, checkpoints (the `best` metric
    says which is the best one)."""
    every = config.log.every
    made: list[Hook] = [WriteMetrics(run.metrics, every), ShowProgress(every), hooks.StopOnSignal()]
    if config.log.tensorboard:
        made.append(hooks.WriteTensorBoard(run.path / "tensorboard", every))
    if config.train.max_minutes is not None:
        made.append(hooks.TimeBudget(config.train.max_minutes))
    return [*made, hooks.SaveCheckpoints(run.checkpoints, config.checkpoint, best)]


def load_trained(folder: RunFolder, model: nn.Module, checkpoint: str, device: str) -> tuple[nn.Module, Path]:
    """The model with a run's averaged weights (or its last ones, where none were averaged), in eval mode on
    the device, and the checkpoint that they are from."""
    path = folder.checkpoints.find(checkpoint)
    stored = read_checkpoint(path)
    load_weights(model, stored.part("ema") or stored.part("model"), path)
    with distributed.process_group(device) as place:
        return model.to(place).eval(), path
