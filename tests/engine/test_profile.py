"""A profile measures what it says, by a clock that only the work moves, and leaves the training as it is."""

import json
import time

import pytest
import torch

from sparse3d.data.loader import make_loader
from sparse3d.engine import memory
from sparse3d.engine.loop import PHASES, Hook, TrainConfig, Trainer
from sparse3d.engine.optim import SGDConfig
from sparse3d.engine.profile import TRACED_STEPS, WARM_UP, ProfileSteps, loader_speed
from sparse3d.engine.schedule import ConstantConfig
from tests.engine.test_uneven import Net, Rows


class Clock:
    now = 100.0


class SlowRows(Rows):
    """A frame takes 3 s to read."""

    def __getitem__(self, pair):
        Clock.now += 3.0
        return super().__getitem__(pair)


class SlowNet(Net):
    """Forward takes 5 s, backward 7 s."""

    def __init__(self):
        super().__init__(norm=False)
        self.head.register_full_backward_hook(self.backward_takes)

    def loss(self, batch):
        Clock.now += 5.0
        return super().loss(batch)

    @staticmethod
    def backward_takes(*arguments):
        Clock.now += 7.0


class SlowHook(Hook):
    def after_step(self, trainer):
        Clock.now += 2.0


def run(*hooks, steps=12, model=None):
    trainer = Trainer(
        model or SlowNet(),
        make_loader(SlowRows(40), 2, shuffle=True),
        TrainConfig(steps=steps, accumulate=2),
        SGDConfig(lr=0.1),
        ConstantConfig(),
        hooks=hooks,
    )
    step = trainer.optimizer.step

    def slow_step(*arguments, **options):
        Clock.now += 1.0
        return step(*arguments, **options)

    trainer.optimizer.step = slow_step
    trainer.train()
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(time, "perf_counter", lambda: Clock.now)


def test_each_phase_has_the_time_that_it_takes(clock):
    told = []
    run(ProfileSteps(4, told.append), SlowHook())
    (profile,) = told
    assert profile.phases.shape == (4, len(PHASES))
    # Two batches a step, of two frames of 3 s each.
    for row in profile.phases:
        assert dict(zip(PHASES, row.tolist(), strict=True)) == {
            "data": 12.0,
            "transfer": 0.0,
            "forward": 10.0,
            "backward": 14.0,
            "optimizer": 1.0,
        }
    assert profile.steps.tolist() == [39.0] * 4, "2 s of each are the hook's"
    assert profile.waiting == pytest.approx(12 / 39)
    assert profile.loader is not None and profile.loader.frames_per_second == pytest.approx(1 / 3)
    shown = " ".join(profile.lines())
    assert "training: 0.1 frames/s" in shown and "loader alone: 0.3 frames/s with 0 workers" in shown
    assert "training waits for data 30.8 % of the time" in shown and "GiB in this process" in shown
    rows = {row[0]: row for row in zip(*(column.cells for column in profile.table().columns), strict=True)}
    assert rows["rest (hooks, reports)"][1:] == ("2000.0", "5.1 %")


def test_nothing_that_is_learned_changes():
    told = []
    plain = run()
    assert torch.equal(run(ProfileSteps(3, told.append)), plain) and len(told) == 1


@pytest.mark.parametrize("steps", [1, 2, WARM_UP, WARM_UP + 2])
def test_a_run_shorter_than_the_profile_is_told_at_its_end(steps):
    told = []
    run(ProfileSteps(50, told.append), steps=steps)
    assert [len(profile.steps) for profile in told] == [max(1, steps - WARM_UP)]


def test_a_trace_holds_the_phases_of_its_steps(tmp_path):
    path = tmp_path / "deep/trace.json"
    run(ProfileSteps(5, lambda profile: None, path))
    names = [event.get("name") for event in json.loads(path.read_text())["traceEvents"]]
    assert names.count("sparse3d::optimizer") == TRACED_STEPS
    assert names.count("sparse3d::forward") == 2 * TRACED_STEPS


def test_a_failing_run_leaves_no_tracer_behind():
    class Fails(SlowHook):
        def after_step(self, trainer):
            if trainer.step == WARM_UP + 1:
                raise RuntimeError("of its own")

    hook = ProfileSteps(50, lambda profile: None, trace="never.json")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RuntimeError, match="of its own"):
        run(hook, Fails())
    assert hook._tracer is None


def test_the_loader_is_timed_after_its_first_batch_and_not_longer_than_asked(clock):
    assert loader_speed(make_loader(SlowRows(2), 2)) is None, "a single batch has no pace"
    speed = loader_speed(make_loader(SlowRows(11), 2))
    assert speed is not None and speed.frames_per_second == pytest.approx(1 / 3)
    read = Clock.now
    loader_speed(make_loader(SlowRows(40), 2), seconds=13.0)
    assert Clock.now - read == 3.0 * 2 * 4, "one batch to start the clock, three until it is over 13 s"


def test_memory_is_told_in_bytes():
    held, peak = memory.resident(), memory.peak_resident()
    if held is None or peak is None:
        pytest.skip("this system does not tell")
    assert 2**24 < held <= peak < 2**40
    assert memory.resident(2**30) is None, "no such process"


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        ProfileSteps(0, lambda profile: None)
