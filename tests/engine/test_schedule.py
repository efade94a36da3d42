"""Schedules: their end points, their order, and one-cycle against its definition by hand."""

import math

import pytest
import torch

from sparse3d.engine.optim import AdamWConfig, SGDConfig, build_optimizer
from sparse3d.engine.schedule import (
    ConstantConfig,
    CosineConfig,
    MultiStepConfig,
    OneCycleConfig,
    apply_schedule,
)


def test_one_cycle_end_points():
    cycle = OneCycleConfig(warmup=0.4, start_divisor=10, end_divisor=1e4)
    assert cycle.at(0, 100) == (pytest.approx(0.1), pytest.approx(0.95))
    assert cycle.at(40, 100) == (pytest.approx(1.0), pytest.approx(0.85))
    assert cycle.at(100, 100) == (pytest.approx(1e-5), pytest.approx(0.95))
    # Half way up a cosine is the mean of its ends; likewise half way down.
    assert cycle.at(20, 100) == (pytest.approx(0.55), pytest.approx(0.90))
    assert cycle.at(70, 100) == (pytest.approx(0.5 * (1 + 1e-5)), pytest.approx(0.90))
    # A quarter of the way: the cosine of 45 degrees.
    assert cycle.at(10, 100).lr_factor == pytest.approx(0.1 + 0.9 * (1 - math.cos(math.pi / 4)) / 2)


def test_one_cycle_rises_then_falls_and_momentum_mirrors_it():
    values = [OneCycleConfig().at(step, 50) for step in range(51)]
    rates = [value.lr_factor for value in values]
    assert rates[:21] == sorted(rates[:21]) and rates[20:] == sorted(rates[20:], reverse=True)
    momenta = [value.momentum for value in values]
    assert momenta[:21] == sorted(momenta[:21], reverse=True) and momenta[20:] == sorted(momenta[20:])


@pytest.mark.parametrize("total", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "schedule", [OneCycleConfig(), CosineConfig(warmup=0.5), ConstantConfig(warmup=0.5), MultiStepConfig()]
)
def test_shortest_runs_have_a_rate_in_0_1(schedule, total):
    for step in range(total + 1):
        assert 0.0 <= schedule.at(step, total).lr_factor <= 1.0


def test_cosine_constant_and_multistep_by_hand():
    cosine = CosineConfig(warmup=0.2, end_factor=0.1)
    assert [cosine.at(s, 10).lr_factor for s in (0, 1, 2, 6)] == pytest.approx([0.5, 1.0, 1.0, 0.55])
    assert [ConstantConfig(warmup=0.4).at(s, 10).lr_factor for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    steps = MultiStepConfig(milestones=(0.5, 0.8), factor=0.1)
    assert [steps.at(s, 10).lr_factor for s in (4, 5, 7, 8)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_schedule_sets_rate_and_beta1_of_every_group():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.LayerNorm(2))
    optimizer = build_optimizer(AdamWConfig(lr=0.5, decay_norm_and_bias=False), model)
    cycle = OneCycleConfig()
    for step in (0, 3, 4):  # factors of the peak rate, not of one another
        rate = apply_schedule(optimizer, cycle.at(step, 10))
    assert rate == 0.5 and [g["lr"] for g in optimizer.param_groups] == [0.5, 0.5]
    assert [g["betas"] for g in optimizer.param_groups] == [(0.85, 0.99)] * 2


def test_schedule_sets_momentum_of_sgd():
    optimizer = build_optimizer(SGDConfig(), torch.nn.Linear(2, 2))
    apply_schedule(optimizer, OneCycleConfig().at(0, 10))
    assert optimizer.param_groups[0]["momentum"] == 0.95


def test_norms_and_biases_are_decayed_only_when_asked():
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    free = build_optimizer(AdamWConfig(weight_decay=0.1, decay_norm_and_bias=False), model).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in free] == [(0.1, 1), (0.0, 3)]
    every = build_optimizer(AdamWConfig(weight_decay=0.1), model).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in every] == [(0.1, 4)]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: OneCycleConfig(warmup=1.0), "warmup"),
        (lambda: MultiStepConfig(milestones=(0.9, 0.5)), "milestones"),
        (lambda: AdamWConfig(lr=0.0), "lr must be above 0"),
        (lambda: AdamWConfig(betas=(0.9, 1.0)), "betas"),
        (lambda: SGDConfig(momentum=1.0), "momentum"),
    ],
)
def test_values_that_cannot_work_are_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(AdamWConfig(), torch.nn.ReLU())
