"""Other axes: the same Gaussians, the same colours from where one looks."""

import itertools

import pytest
import torch

from sparse3d.gaussians.formats import read_splats, write_splats
from sparse3d.gaussians.formats.frames import AXES, change_axes, flips
from sparse3d_ops.spherical_harmonics import sh_colors
from tests.gaussians.splat_files import assert_same, some_cloud


def rotation(quats):
    w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    rows += [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]
    rows += [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, 1).view(-1, 3, 3)


def covariance(cloud):
    half = rotation(cloud.quats) * cloud.scales.exp()[:, None]
    return half @ half.mT


@pytest.mark.parametrize("to", AXES)
def test_shapes_and_colours_go_with_the_axes(to):
    cloud = some_cloud(50, 4).to(torch.float64)
    moved = change_axes(cloud, "RDF", to)
    flip = torch.diag(torch.tensor(flips("RDF", to), dtype=torch.float64))
    torch.testing.assert_close(moved.means, cloud.means @ flip)
    torch.testing.assert_close(covariance(moved), flip @ covariance(cloud) @ flip)
    directions = torch.nn.functional.normalize(some_cloud(50, seed=3).means.double(), dim=1)
    before = sh_colors(torch.cat([cloud.sh0, cloud.shN], 1), directions)
    after = sh_colors(torch.cat([moved.sh0, moved.shN], 1), directions @ flip)
    torch.testing.assert_close(after, before)


def test_there_and_back_and_round_about():
    cloud = some_cloud(20, 3)
    for a, b in itertools.product(AXES, AXES):
        assert_same(change_axes(change_axes(cloud, a, b), b, a), cloud)
        assert_same(change_axes(change_axes(cloud, a, b), b, "RUB"), change_axes(cloud, a, "RUB"))


def test_what_names_no_axes_is_told():
    for name in ("RDX", "DRF", "", "rdf"):
        with pytest.raises(ValueError, match="names no axes; there are RUF"):
            flips("RDF", name)


def test_a_file_may_be_of_other_axes_than_its_format(tmp_path):
    cloud = some_cloud(20, 2)
    write_splats(tmp_path / "a.ply", cloud, axes="RUB")
    assert_same(read_splats(tmp_path / "a.ply"), change_axes(cloud, "RDF", "RUB"))
    assert_same(read_splats(tmp_path / "a.ply", axes="RUB"), cloud)
