"""Corrections of poses turn and shift rays as matrices do, and find cameras that were moved."""

import torch
from torch.nn.functional import normalize

from sparse3d.fields.pose_refinement import PoseRefinement, turned
from sparse3d.geometry.rays import Rays


def skew(turn):
    x, y, z = turn
    return torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=turn.dtype)


def test_a_turn_is_the_exponential_of_its_matrix():
    torch.manual_seed(0)
    vectors = torch.randn(20, 3, dtype=torch.float64)
    turn = torch.randn(20, 3, dtype=torch.float64) * torch.logspace(-9, 0.5, 20, dtype=torch.float64)[:, None]
    want = torch.stack([torch.matrix_exp(skew(w)) @ v for w, v in zip(turn, vectors, strict=True)])
    torch.testing.assert_close(turned(vectors, turn), want, atol=1e-8, rtol=1e-8)


def test_no_turn_has_a_gradient():
    vectors = normalize(torch.randn(5, 3, dtype=torch.float64), dim=1)
    turn = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.equal(turned(vectors, turn), vectors)
    assert torch.autograd.gradcheck(lambda w: turned(vectors, w), turn)


def test_rays_and_poses_move_alike():
    torch.manual_seed(0)
    refinement = PoseRefinement(3, turn=0.2, shift=0.1).double()
    refinement.corrections.data.normal_()
    poses = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    poses[:, :3, :3] = torch.linalg.qr(torch.randn(3, 3, 3, dtype=torch.float64))[0]
    poses[:, :3, 3] = torch.randn(3, 3, dtype=torch.float64)
    local, camera = normalize(torch.randn(9, 3, dtype=torch.float64), dim=1), torch.arange(9) % 3

    def rays(poses):
        return Rays(poses[camera, :3, 3], (poses[camera, :3, :3] @ local[..., None])[..., 0])

    moved, want = refinement(rays(poses), camera), rays(refinement.poses(poses))
    torch.testing.assert_close(moved.origins, want.origins)
    torch.testing.assert_close(moved.directions, want.directions)
    assert not torch.allclose(moved.directions, rays(poses).directions, atol=1e-2)
    torch.testing.assert_close(moved.directions.norm(dim=1), torch.ones(9, dtype=torch.float64))
