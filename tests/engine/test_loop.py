"""What a step does: accumulation, clipping, averages, precision; batches with nothing in them; divergence."""

import time

import pytest
import torch
from torch import nn

from sparse3d.engine.diverged import TrainingDiverged
from sparse3d.engine.ema import Ema
from sparse3d.engine.loop import Hook, TrainConfig
from sparse3d.engine.optim import SGDConfig
from sparse3d.engine.schedule import ConstantConfig
from tests.engine.small import Batch, SmallLoader, SmallNet, small_trainer

PLAIN = {"optimizer": SGDConfig(lr=0.1, weight_decay=0.0), "schedule": ConstantConfig()}


def plain_net():
    """Without dropout and batch norm, so that a batch is the sum of its rows."""
    torch.manual_seed(1)
    return SmallNet(dropout=0.0, norm=False)


def weights_after(config, loader, **other):
    trainer = small_trainer(config, model=plain_net(), loader=loader, **PLAIN, **other)
    trainer.train()
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_training_lowers_the_loss():
    trainer = small_trainer(TrainConfig(epochs=20), model=plain_net())

    @torch.no_grad()
    def loss():
        return sum(map(float, trainer.model.loss(Batch(trainer.loader.x, trainer.loader.y)).values()))

    before = loss()
    trainer.train()
    assert loss() < 0.3 * before


def test_accumulated_batches_are_one_large_batch():
    small = weights_after(TrainConfig(epochs=1, accumulate=4, clip_grad_norm=1.0), SmallLoader(24, 2))
    large = weights_after(TrainConfig(epochs=1, clip_grad_norm=1.0), SmallLoader(24, 8))
    assert torch.allclose(small, large, rtol=1e-5, atol=1e-6)  # order of float32 sums


def test_a_shorter_last_group_is_still_a_mean():
    """10 batches by 4: the last group has two, and they weigh what two batches of their own would."""
    steps = []

    class Note(Hook):
        def after_step(self, trainer):
            steps.append((trainer.batch, trainer.report.samples))

    small_trainer(TrainConfig(epochs=1, accumulate=4), hooks=[Note()]).train()
    assert steps == [(4, 8), (8, 8), (10, 4)]


def test_the_seconds_of_a_step_are_those_since_the_training_began():
    """The clock of the machine runs since it was switched on, and once that counted as the first step's."""
    begin, seconds = time.perf_counter(), []

    class Note(Hook):
        def after_step(self, trainer):
            seconds.append(trainer.report.seconds)

    small_trainer(TrainConfig(epochs=1), hooks=[Note()]).train()
    assert min(seconds) > 0
    assert sum(seconds) <= time.perf_counter() - begin


def test_clipping_bounds_the_step():
    class OneStep(Hook):
        def after_step(self, trainer):
            self.norm = trainer.report.grad_norm
            trainer.stop("enough")

    hook = OneStep()
    start = torch.cat([p.detach().flatten() for p in plain_net().parameters()])
    clipped = weights_after(TrainConfig(steps=9, clip_grad_norm=0.01), SmallLoader(), hooks=[hook])
    assert hook.norm > 0.01
    # SGD with Nesterov's first step: lr * (1 + momentum) * gradient
    assert float((clipped - start).norm()) == pytest.approx(0.1 * 1.9 * 0.01, rel=1e-3)


def test_report_is_the_sum_of_named_losses():
    trainer = small_trainer(TrainConfig(steps=1))
    trainer.train()
    assert trainer.report is not None
    assert set(trainer.report.losses) == {"first", "second"}
    assert trainer.report.total == pytest.approx(sum(trainer.report.losses.values()))


def test_average_of_weights_follows_its_definition_and_copies_buffers():
    model = SmallNet()
    ema = Ema(model, decay=0.9)
    name, start = "head.weight", model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight += 1.0
        model.body[1].running_mean += 5.0
    ema.update(model)
    # first update: decay (1 + 1) / (10 + 1)
    assert torch.allclose(ema.tensors[name], start + (1 - 2 / 11))
    assert torch.equal(ema.tensors["body.1.running_mean"], model.body[1].running_mean)
    own = model.head.weight.detach().clone()
    with ema.swapped_into(model):
        assert torch.equal(model.head.weight, ema.tensors[name])
    assert torch.equal(model.head.weight, own)


def test_bf16_computes_in_bf16_and_keeps_float32_weights():
    seen = []

    class Watch(SmallNet):
        def forward(self, batch):
            out = super().forward(batch)
            seen.append(out.dtype)
            return out

    trainer = small_trainer(TrainConfig(steps=2, precision="bf16"), model=Watch())
    trainer.train()
    assert seen == [torch.bfloat16] * 2
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match="bf16"):
        small_trainer(TrainConfig(precision="fp16"))


@pytest.mark.parametrize("dead", ["constant", "no rows"])
def test_batches_with_nothing_in_them_do_not_stop_the_run(dead):
    class Sometimes(SmallNet):
        count = 0

        def loss(self, batch):
            self.count += 1
            if self.count % 2 == 0:
                return super().loss(batch)
            if dead == "constant":  # a model that has nothing to learn from such a batch
                return {"first": torch.zeros(()), "second": torch.zeros(())}
            empty = self.head(batch.x[:0].repeat(1, 2))
            return {"first": empty[:, 0].sum(), "second": empty[:, 1].sum()}

    trainer = small_trainer(TrainConfig(steps=4), model=Sometimes())
    before = trainer.model.head.weight.detach().clone()
    assert trainer.train() == "finished" and trainer.step == 4
    assert torch.isfinite(trainer.model.head.weight).all()
    assert not torch.equal(trainer.model.head.weight, before)


class Poison(nn.Module):
    """Puts out NaN from the given call on."""

    def __init__(self, call):
        super().__init__()
        self.call, self.count = call, 0

    def forward(self, x):
        self.count += 1
        return x * float("nan") if self.count >= self.call else x


def test_divergence_names_the_loss_and_the_first_layer_and_keeps_the_weights():
    model = SmallNet(dropout=0.0)
    model.body.append(Poison(call=4))
    states = []

    class Keep(Hook):
        closed = False

        def after_step(self, trainer):
            states.append({name: t.clone() for name, t in trainer.model.named_parameters()})

        def close(self):
            self.closed = True

    keep = Keep()
    trainer = small_trainer(TrainConfig(steps=9), model=model, hooks=[keep])
    with pytest.raises(TrainingDiverged) as caught:
        trainer.train()
    message = str(caught.value)
    assert "diverged at step 3" in message and "first = nan" in message and "second = nan" in message
    assert "first layer with a non-finite output: body.4 (Poison)" in message
    assert f"frames: {', '.join(trainer.loader.handed_out[3])}" in message
    assert "optimizer.lr" in message and "\n" not in message
    assert keep.closed and len(states) == 3
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, states[-1][name])


def test_divergence_of_the_gradient_alone_names_the_parameter():
    class RootAtZero(SmallNet):
        def loss(self, batch):
            losses = super().loss(batch)
            # finite value, infinite slope
            return {**losses, "root": (self.head.bias * 0.0).abs().sum().sqrt()}

    with pytest.raises(TrainingDiverged, match="gradients that are not finite: head.bias"):
        small_trainer(TrainConfig(steps=2), model=RootAtZero()).train()


def test_divergence_through_the_data_names_the_tensor():
    loader = SmallLoader()
    loader.x[3, 1] = float("inf")
    with pytest.raises(TrainingDiverged, match="the batch itself is not finite: batch.x"):
        small_trainer(TrainConfig(epochs=1), loader=loader).train()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"max_minutes": 0.0}, "max_minutes must be above 0"),
        ({"clip_grad_norm": -1.0}, "clip_grad_norm must be above 0"),
        ({"ema_decay": 1.0}, "ema_decay must lie in"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, problem):
    with pytest.raises(ValueError, match=problem):
        TrainConfig(**change)
