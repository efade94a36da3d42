"""The projection of Gaussians under the law suite."""

import torch

from sparse3d_ops import splat_projection
from tests.ops.laws import OpLaw
from tests.oracles import splat_projection as oracle


def camera(width, height, dtype, focal=1.2, turn=0.3):
    """World to camera (4, 4), 3 m in front of the origin and turned a little, and the intrinsics (4,)."""
    c, s = torch.tensor(turn, dtype=dtype).cos(), torch.tensor(turn, dtype=dtype).sin()
    pose = torch.eye(4, dtype=dtype)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2] = c, s, -s, c
    pose[:3, 3] = torch.tensor([0.1, -0.05, 3.0], dtype=dtype)
    lens = [width * focal, width * focal * 0.9, width / 2 + 0.3, height / 2 - 0.2]
    return pose, torch.tensor(lens, dtype=dtype)


def cloud(count, dtype, extent=0.8, scale=0.15):
    """means, quats, scales, opacities of some Gaussians around the origin."""
    means = (torch.rand(count, 3, dtype=dtype) * 2 - 1) * extent
    scales = torch.exp(torch.randn(count, 3, dtype=dtype) * 0.4) * scale
    return means, torch.randn(count, 4, dtype=dtype), scales, torch.rand(count, dtype=dtype) * 0.9 + 0.05


def _project(count, width=40, height=24, orthographic=False, change=None, **sizes):
    def make(dtype, device):
        splats, (pose, lens) = list(cloud(count, dtype, **sizes)), camera(width, height, dtype)
        if orthographic:
            lens = torch.tensor([14.0, 13.0, width / 2, height / 2], dtype=dtype)
        if change:
            change(*splats)
        tensors = [x.to(device) for x in (*splats, pose, lens)]
        return *tensors, width, height, 0.01, 0.3, orthographic

    return make


def _unseen(means, quats, scales, opacities):
    """Behind, beside, too near, no opacity, no rotation, not finite: only the last one can be seen."""
    far = torch.tensor([[0.0, 0, -9], [9, 0, 0], [0, 9, 0], [0, 0, -2.99]], dtype=means.dtype)
    means[:4] = far
    opacities[4], opacities[5], quats[6] = 0, torch.nan, 0
    means[7, 1], scales[8, 2], quats[9, 0], means[10, 0] = torch.nan, torch.inf, torch.nan, torch.inf


def _beside(means, quats, scales, opacities):
    """Beside the camera, where slopes are held, and large, so that they are seen."""
    means *= torch.tensor([8.0, 6, 1])
    means[:, 2] -= 1.5
    scales *= 6


def _needles(means, quats, scales, opacities):
    scales[:, 0] *= 5
    scales[:, 1:] *= 0.02


def _flat(means, quats, scales, opacities):
    scales[::2, 1] = 0


CASES = {
    "empty": _project(0),
    "single": _project(1),
    "many": _project(40),
    "tiny": _project(12, scale=1e-3),
    "narrow": _project(9, width=1, height=70),
    "orthographic": _project(12, orthographic=True),
    "unseen": _project(12, change=_unseen),
    "beside": _project(30, change=_beside),
    "needles": _project(12, change=_needles),
    "flat": _project(12, change=_flat),
}


def _backward(case):
    def make(dtype, device):
        means, quats, scales, opacities, pose, lens, *rest = case(dtype, torch.device("cpu"))
        # By the definition: the op itself may be that of a device.
        found = oracle.project(means, quats, scales, opacities, pose, lens, *rest)
        grads = [torch.randn_like(x) for x in (found[0], found[1], found[2], found[4])]
        inputs = (means, quats, scales, pose, lens, found[3], *grads)
        return *(x.to(device) for x in inputs), *rest

    return make


def project_without_reach(*args):
    """What has gradients."""
    means2d, conics, depths, _, compensation = splat_projection.project_splats(*args)
    return means2d, conics, depths, compensation


# Where slopes are held at the border, finite differences see its place move with the lens, and gradients by
# definition do not: those cases are held against the definition of the way back instead.
SMOOTH = ("empty", "single", "many", "orthographic", "unseen", "needles")
TOLERANCE = 3e-5  # the inverse of a needle's covariance, and a slope times a focal length
LAWS = [
    OpLaw(splat_projection.project_splats, oracle.project, CASES, tolerance=TOLERANCE),
    OpLaw(
        project_without_reach,
        lambda *args: [x for k, x in enumerate(oracle.project(*args)) if k != 3],
        {name: CASES[name] for name in SMOOTH},
        differentiable=(0, 1, 2, 4, 5),
        tolerance=TOLERANCE,
        steps=lambda *args: [(splat_projection.project_splats, args)],
    ),
    OpLaw(
        splat_projection.project_splats_backward,
        oracle.project_backward,
        {name: _backward(case) for name, case in CASES.items() if name not in ("unseen", "flat")},
        tolerance=1e-4,  # conics times gradients times conics
    ),
]
