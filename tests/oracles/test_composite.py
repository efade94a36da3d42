"""The definitions of volume rendering on cases computed by hand."""

import math

import torch

from tests.oracles import composite as oracle

TWO_RAYS = torch.tensor([0, 2, 3])


def test_two_samples_that_each_let_half_through():
    half = math.log(2)
    sigma, dt = torch.tensor([half, 2 * half, 0.0]), torch.tensor([1.0, 0.5, 3.0])
    values = torch.tensor([[8.0], [4.0], [2.0]])
    out, opacity, weights = oracle.composite(sigma, values, dt, TWO_RAYS, 0.0)
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.25, 0.0]))
    torch.testing.assert_close(out, torch.tensor([[5.0], [0.0]]))
    torch.testing.assert_close(opacity, torch.tensor([0.75, 0.0]))


def test_a_sample_that_too_little_light_reaches_is_left_out():
    half = torch.full((3,), math.log(2))
    weights = oracle.composite(half, torch.ones(3, 1), torch.ones(3), torch.tensor([0, 3]), 0.4)[2]
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.25, 0.0]))


def test_distortion_of_two_samples():
    # 2 * 0.5 * 0.25 * |3 - 1| + (0.25 * 0.6 + 0.0625 * 1.2) / 3, and a lone sample
    weights, t, dt = torch.tensor([[0.5, 0.25, 1.0], [1.0, 3.0, 7.0], [0.6, 1.2, 3.0]])
    got = oracle.distortion(weights, t, dt, TWO_RAYS)
    torch.testing.assert_close(got, torch.tensor([0.5 + 0.075, 1.0]))


def test_running_sums_leave_the_sample_itself_out_and_start_anew_on_each_ray():
    values = torch.tensor([1.0, 2.0, 4.0])
    assert oracle.running_sum(values, TWO_RAYS, False).tolist() == [0, 1, 0]
    assert oracle.running_sum(values, TWO_RAYS, True).tolist() == [2, 0, 0]


def test_the_trilinear_form_of_rays():
    weights, values = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    rays = torch.tensor([[10.0, 20.0], [1.0, 2.0]])
    assert oracle.accumulate(weights, values, TWO_RAYS).tolist() == [[1, 2], [6, 6]]
    assert oracle.ray_dot(rays, values, TWO_RAYS).tolist() == [10, 20, 6]
    assert oracle.ray_scale(rays, weights, TWO_RAYS).tolist() == [[10, 20], [20, 40], [3, 6]]
