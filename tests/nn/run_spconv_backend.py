"""Runs a network on sparse3d's kernels and on the real spconv's, and compares; for an interpreter that has
both."""

import torch

import sparse3d
from sparse3d import SparseTensor, nn

torch.set_num_threads(1)  # spconv's CPU kernels race with more
device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cpu":
    import spconv.pytorch

    # Its backward asks CUDA for a stream, on the CPU too, and does not use it there.
    spconv.pytorch.ops.get_current_stream = lambda: 0

torch.manual_seed(0)
dense = torch.randn(2, 8, 20, 18, 16) * (torch.rand(2, 1, 20, 18, 16) < 0.15)
net = nn.Sequential(
    nn.SubMConv3d(8, 16, 3),
    nn.SparseConv3d(16, 32, 3, 2, 1),
    nn.SubMConv3d(32, 32, 5, bias=False),
    nn.SparseInverseConv3d(32, 16, 3),
    nn.SparseConv3d(16, 16, 2, 2),
    nn.GenerativeConvTranspose3d(16, 8, 2),
    nn.SubMConv2d(8, 4, 3),
).to(device)
results = []
for name in ("sparse3d", "spconv"):
    x = SparseTensor.from_dense(dense).to(device)
    features = x.features.detach().requires_grad_()
    with sparse3d.backend(name):
        y = net(x.replace(features))
    weight = torch.linspace(-1, 1, y.features.numel(), device=device).reshape(y.features.shape)
    gradients = torch.autograd.grad((y.features * weight).sum(), [features, *net.parameters()])
    results.append((y.features.detach(), *gradients))
worst = 0.0
for ours, theirs in zip(*results, strict=True):
    difference, scale = float((ours - theirs).abs().max()), float(ours.abs().max())
    worst = max(worst, difference / scale)
    # float32 sums of up to 125 x 32 products in different orders, through seven layers.
    assert difference <= 1e-4 * scale, (difference, scale, tuple(ours.shape))
print(f"largest difference relative to the largest value: {worst:.1e} on {device}")
