"""Runs a network on sparse3d's kernels and on the real spconv's, and compares; for an interpreter that has
both."""

import torch

import sparse3d
from sparse3d import SparseTensor, nn

torch.set_num_threads(2)  # with which spconv's CPU kernels would race, were they not held to one
# spconv's GPU kernels have no float64. Sums of up to 125 x 32 products in different orders, through seven
# layers.
device, dtype, tolerance = "cpu", torch.float64, 1e-12
if torch.cuda.is_available():
    device, dtype, tolerance = "cuda", torch.float32, 1e-4
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
).to(device, dtype)
results = []
for name in ("sparse3d", "spconv"):
    x = SparseTensor.from_dense(dense.to(dtype)).to(device)
    features = x.features.detach().requires_grad_()
    with sparse3d.backend(name):
        y = net(x.replace(features))
    weight = torch.linspace(-1, 1, y.features.numel(), device=device, dtype=dtype).reshape(y.features.shape)
    gradients = torch.autograd.grad((y.features * weight).sum(), [features, *net.parameters()])
    results.append((y.features.detach(), *gradients))
worst = 0.0
for ours, theirs in zip(*results, strict=True):
    difference, scale = float((ours - theirs).abs().max()), float(ours.abs().max())
    worst = max(worst, difference / scale)
    assert difference <= tolerance * scale, (difference, scale, tuple(ours.shape))
print(f"largest difference relative to the largest value: {worst:.1e}, {dtype} on {device}")
