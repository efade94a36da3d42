"""The definition of structural similarity on pictures whose moments are known."""

import numpy as np
import torch

from sparse3d.evaluation.images import ssim_map
from tests.oracles import structural_similarity as oracle


def test_flat_pictures_differ_by_their_means_alone():
    x, y = torch.full((12, 11, 1), 0.5), torch.full((12, 11, 1), 0.25)
    found = oracle.ssim_map(x, y)
    assert found.shape == (2, 1, 1)
    assert torch.allclose(found, torch.tensor((2 * 0.125 + 1e-4) / (0.3125 + 1e-4), dtype=torch.float64))
    assert torch.equal(oracle.ssim_map(x, x), torch.ones_like(found))


def test_it_is_the_measure_of_evaluations():
    random = np.random.default_rng(0)
    x, y = random.random((2, 13, 15, 3))
    assert np.allclose(oracle.ssim_map(x, y).numpy(), ssim_map(x, y), atol=1e-13)
