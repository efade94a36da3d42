"""Containers, residual blocks, dense maps; and whole networks under torch.compile without a graph break."""

import copy

import pytest
import torch

from sparse3d import SparseTensor, nn
from tests.nn.dense import pair, sparse_volume


def test_sequential_mixes_sparse_and_plain_modules():
    x, _ = pair()
    net = nn.Sequential(
        nn.SubMConv3d(3, 4),
        torch.nn.BatchNorm1d(4),
        torch.nn.ReLU(),
        torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.GELU()),
        nn.ToDense(),
        torch.nn.Conv3d(5, 2, 3),
    )
    out = net(x)
    assert out.shape == (2, 2, 4, 3, 2)
    step = net[0](x)
    for module in (net[1], net[2], net[3]):
        step = step.replace(module(step.features))
    torch.testing.assert_close(out, net[5](step.dense()))


@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (nn.ReLU(), torch.nn.ReLU()),
        (nn.LeakyReLU(0.2), torch.nn.LeakyReLU(0.2)),
        (nn.GELU(), torch.nn.GELU()),
        (nn.SiLU(), torch.nn.SiLU()),
        (nn.Sigmoid(), torch.nn.Sigmoid()),
        (nn.Tanh(), torch.nn.Tanh()),
        (nn.Dropout(0.0), torch.nn.Identity()),
    ],
    ids=lambda m: type(m).__name__,
)
def test_activations_act_on_features(ours, torchs):
    x, _ = pair()
    out = ours(x)
    assert torch.equal(out.features, torchs(x.features)) and out.sites is x.sites


def test_linear_is_a_convolution_of_one_voxel():
    x, _ = pair()
    linear, conv = nn.Linear(3, 4), nn.SubMConv3d(3, 4, 1)
    conv.weight.data.copy_(linear.function.weight.T.reshape(1, 1, 1, 3, 4))
    conv.bias.data.copy_(linear.function.bias)
    torch.testing.assert_close(linear(x).features, conv(x).features)


@pytest.mark.parametrize("width", [3, 6])
def test_residual_block_with_silent_convolutions_is_relu_of_its_shortcut(width):
    x, _ = pair()
    block = nn.ResidualBlock(3, width)
    torch.nn.init.zeros_(block.second[1].weight)
    want = x if width == 3 else block.shortcut(x)
    assert torch.equal(block(x).features, want.features.relu())


def test_bev_folds_height_into_channels():
    volume = sparse_volume(channels=2, shape=(4, 3, 5))
    bev = nn.ToBEV()(SparseTensor.from_dense(volume))
    assert bev.shape == (2, 10, 4, 3)
    for c in range(2):
        for z in range(5):
            assert torch.equal(bev[:, c * 5 + z], volume[:, c, :, :, z])
    with pytest.raises(ValueError, match="bounded grid"):
        x = SparseTensor.from_dense(volume)
        nn.ToBEV()(SparseTensor(x.features, x.coordinates))


def unet():
    return nn.Sequential(
        nn.ConvBlock(nn.SubMConv3d(3, 8, bias=False), 8),
        nn.DownBlock(8, 8),
        nn.ResidualBlock(8, 6),
        nn.SparseInverseConv3d(6, 4, 3),
    )


@pytest.mark.parametrize("training", [True, False])
def test_a_network_compiles_without_a_graph_break(training):
    torch._dynamo.reset()
    x, _ = pair()
    fresh = SparseTensor(x.features, x.coordinates, batch_size=2, shape=x.shape)
    net = unet().train(training)
    twin = copy.deepcopy(net)
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    got, want = compiled(fresh).features, twin(x).features
    torch.testing.assert_close(got, want)
    for loss, module in ((got, net), (want, twin)):
        loss.square().sum().backward()
        assert all(p.grad is not None for p in module.parameters())
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(net.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_tensor_built_inside_a_compiled_network_meets_a_given_target():
    torch._dynamo.reset()
    x, _ = pair()
    down, up = nn.SparseConv3d(3, 4, 3, 2, 1), nn.SparseConvTranspose3d(4, 5, 3, 2, 1)

    def run(x):
        y = down(x)
        again = SparseTensor(y.features * 2, y.coordinates, stride=2, batch_size=2, shape=y.shape)
        return up(again, x).features

    fresh = SparseTensor(x.features, x.coordinates, batch_size=2, shape=x.shape)
    got = torch.compile(run, fullgraph=True, backend="aot_eager")(fresh)
    torch.testing.assert_close(got, run(x))


def test_training_is_bitwise_repeatable():
    def run():
        torch.manual_seed(3)
        net = unet()
        optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
        for step in range(3):
            optimizer.zero_grad()
            net(SparseTensor.from_dense(sparse_volume(seed=step))).features.square().mean().backward()
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    assert torch.equal(run(), run())
