"""Every convolution equals torch's on the densified input: sites, values and all gradients."""

import pytest
import torch
import torch.nn.functional as F

from sparse3d import SparseTensor, nn
from tests.nn.dense import at_sites, pair, sparse_volume, torch_weight

# (kernel, stride, padding, dilation), odd and even, alike and different per axis.
GEOMETRIES = [
    (3, 1, 0, 1),
    (3, 1, 1, 1),
    (3, 2, 1, 1),
    (2, 2, 0, 1),
    (1, 2, 0, 1),
    ((3, 1, 2), (2, 1, 1), (1, 0, 1), 1),
    ((1, 1, 3), (1, 1, 2), 0, 1),
    ((2, 3, 3), (1, 3, 2), (0, 2, 1), (2, 1, 1)),
    (3, 3, (1, 2, 0), 1),
    (5, 2, 2, 1),
]
GROUPS = [(3, 4, 1), (4, 6, 2), (4, 4, 4)]


def assert_same(got, want, tolerance=1e-5):
    scale = max(1e-12, float(want.detach().abs().max())) if want.numel() else 1.0
    torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * scale)


def assert_equals_dense(layer, forward_dense, x, volume):
    """Values at the output sites, zeros nowhere else needed, and gradients of input, weight and bias."""
    out = layer(x)
    want = forward_dense(volume)
    assert out.shape == tuple(want.shape[2:])
    # The output sites are those that any active input reaches: the support of a convolution of ones.
    assert_same(out.features, at_sites(want, out))
    seed = torch.randn_like(out.features)
    parameters = list(layer.parameters())
    got = torch.autograd.grad((out.features * seed).sum(), [x.features, *parameters])
    dense = torch.autograd.grad((at_sites(want, out) * seed).sum(), [volume, *parameters])
    assert_same(got[0], at_sites(dense[0], x))
    for ours, theirs in zip(got[1:], dense[1:], strict=True):
        assert_same(ours, theirs)


def support(volume, convolve):
    """Where a convolution with weights of one meets an active voxel."""
    active = (volume != 0).any(1, keepdim=True).double()
    return (convolve(active) > 0.5).nonzero()[:, [0, 2, 3, 4]]


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_strided_convolution_equals_torch(geometry, groups):
    kernel, stride, padding, dilation = geometry
    cin, cout, g = groups
    x, volume = pair(channels=cin)
    layer = nn.SparseConv3d(cin, cout, kernel, stride, padding, dilation, g)

    def dense(v):
        return F.conv3d(v, torch_weight(layer.weight), layer.bias, stride, padding, dilation, g)

    assert_equals_dense(layer, dense, x, volume)
    ones = torch.ones(1, 1, *layer.kernel_size, dtype=torch.float64)
    want = support(volume, lambda a: F.conv3d(a, ones, None, stride, padding, dilation))
    assert torch.equal(layer(x).coordinates.long(), want)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_transposed_convolution_equals_torch(geometry, groups):
    kernel, stride, padding, dilation = geometry
    cin, cout, g = groups
    x, volume = pair(channels=cin)
    step = (stride,) * 3 if isinstance(stride, int) else stride
    x = SparseTensor(x.features, x.coordinates, stride=step, batch_size=2, shape=x.shape)
    extra = tuple(s - 1 for s in step)
    layer = nn.SparseConvTranspose3d(cin, cout, kernel, stride, padding, extra, dilation, g)

    def dense(v):
        weight = torch_weight(layer.weight, g, transposed=True)
        return F.conv_transpose3d(v, weight, layer.bias, stride, padding, extra, g, dilation)

    assert_equals_dense(layer, dense, x, volume)
    assert layer(x).stride == (1, 1, 1)
    ones = torch.ones(1, 1, *layer.kernel_size, dtype=torch.float64)
    want = support(volume, lambda a: F.conv_transpose3d(a, ones, None, stride, padding, extra, 1, dilation))
    assert torch.equal(layer(x).coordinates.long(), want)


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize(
    ("kernel", "dilation"), [(3, 1), (1, 1), ((5, 3, 1), 1), (3, 2), (2, 1), ((4, 3, 2), 1)]
)
def test_submanifold_convolution_equals_torch_at_the_inputs(kernel, dilation, groups):
    cin, cout, g = groups
    x, volume = pair(channels=cin)
    layer = nn.SubMConv3d(cin, cout, kernel, dilation, g)
    assert layer(x).sites is x.sites

    def dense(v):
        # Odd kernels are centred; even ones reach ahead only, so the volume is padded behind alone.
        sides = []
        for k, d in zip(layer.kernel_size, layer.dilation, strict=True):
            reach = d * (k - 1)
            sides.append((reach // 2, reach // 2) if k % 2 else (0, reach))
        padded = F.pad(v, [side for axis in reversed(sides) for side in axis])
        return F.conv3d(padded, torch_weight(layer.weight), layer.bias, 1, 0, dilation, g)

    assert_equals_dense(layer, dense, x, volume)


def test_inverse_convolution_returns_to_the_sites_it_came_from():
    x, volume = pair(channels=3)
    down, up = nn.SparseConv3d(3, 5, 3, 2, 1), nn.SparseInverseConv3d(5, 4, 3)
    out = up(nn.SubMConv3d(5, 5)(down(x)))
    assert out.sites is x.sites

    coarse = down(x).detach()
    coarse.features.requires_grad_()
    dense = coarse.dense()
    weight = torch_weight(up.weight, transposed=True)
    extra = [n - ((m - 1) * 2 - 2 + 3) for n, m in zip(x.shape, coarse.shape, strict=True)]
    want = F.conv_transpose3d(dense, weight, up.bias, 2, 1, extra)
    got = nn.SparseInverseConv3d(5, 4, 3, stride=2, padding=1)
    got.load_state_dict(up.state_dict())
    assert_same(got(coarse, target=x).features, at_sites(want, x))
    back = up(down(x))
    assert_same(back.features, at_sites(want, x))
    ours = torch.autograd.grad(got(coarse, target=x).features.square().sum(), [coarse.features, got.weight])
    theirs = torch.autograd.grad(at_sites(want, x).square().sum(), [coarse.features, up.weight])
    for a, b in zip(ours, theirs, strict=True):
        assert_same(a, b)


def test_inverse_without_a_way_back_says_so():
    x, _ = pair()
    with pytest.raises(ValueError, match="not made by a strided convolution"):
        nn.SparseInverseConv3d(3, 3)(x)
    with pytest.raises(ValueError, match="kernel_size"):
        nn.SparseInverseConv3d(4, 3, 2)(nn.SparseConv3d(3, 4, 3, 2, 1)(x))
    with pytest.raises(ValueError, match=r"padding=\(1, 1, 1\).*inverts.*padding=\(0, 0, 0\)"):
        nn.SparseInverseConv3d(4, 3, 3, stride=2)(nn.SparseConv3d(3, 4, 3, 2, 1)(x))
    with pytest.raises(ValueError, match="not what the strided convolution started from"):
        nn.SparseInverseConv3d(4, 3, 3)(nn.SparseConv3d(3, 4, 3, 2, 1)(x), target=x[:-1])
    with pytest.raises(ValueError, match="stride is 0"):
        nn.SparseInverseConv3d(4, 3, 3, stride=0)


@pytest.mark.parametrize("kernel", [2, 3, (2, 3, 1)])
def test_generative_convolution_fills_the_kernel_of_every_voxel(kernel):
    x, volume = pair()
    x = SparseTensor(x.features, x.coordinates, stride=4, batch_size=2, shape=x.shape)
    layer = nn.GenerativeConvTranspose3d(3, 4, kernel, stride=2)
    padding, extra = layer.geometry.padding, []
    for k, p in zip(layer.kernel_size, padding, strict=True):
        extra.append(2 - (k - 2 * p))  # so that torch's grid is twice the input's
    keep = tuple(max(0, e) for e in extra)
    crop = [2 * n for n in x.shape]

    def dense(v):
        weight = torch_weight(layer.weight, transposed=True)
        return F.conv_transpose3d(v, weight, layer.bias, 2, padding, keep)[
            ..., : crop[0], : crop[1], : crop[2]
        ]

    assert_equals_dense(layer, dense, x, volume)
    assert layer(x).stride == (2, 2, 2)
    unbounded = SparseTensor(x.features, x.coordinates, stride=4)
    children = len(unbounded) * torch.tensor(layer.kernel_size).prod()
    if kernel == 2:
        assert len(layer(unbounded)) == children  # kernels that do not overlap give every child once


@pytest.mark.parametrize(
    "name", ["SubMConv2d", "SparseConv2d", "SparseConvTranspose2d", "GenerativeConvTranspose2d"]
)
def test_two_dimensional_layers_equal_torch(name):
    x, volume = pair(shape=(7, 6, 1), share=0.4)
    x = SparseTensor(x.features, x.coordinates, stride=(2, 2, 1), batch_size=2, shape=x.shape)
    kernel, stride, padding = (3, 3), (2, 2), (1, 1)
    if name == "SubMConv2d":
        layer = nn.SubMConv2d(3, 4, kernel)
    elif name == "GenerativeConvTranspose2d":
        layer = nn.GenerativeConvTranspose2d(3, 4, 2, 2)
    else:
        layer = getattr(nn, name)(3, 4, kernel, stride, padding)
    assert layer.weight.dim() == 4

    def dense(v):
        flat = v.squeeze(-1)
        if name == "SubMConv2d":
            out = F.conv2d(flat, torch_weight(layer.weight), layer.bias, 1, 1)
        elif name == "SparseConv2d":
            out = F.conv2d(flat, torch_weight(layer.weight), layer.bias, 2, 1)
        else:
            pad = 1 if name == "SparseConvTranspose2d" else 0
            out = F.conv_transpose2d(flat, torch_weight(layer.weight, transposed=True), layer.bias, 2, pad)
        return out.unsqueeze(-1)

    assert_equals_dense(layer, dense, x, volume)


def test_inverse_convolution_in_two_dimensions():
    x, _ = pair(shape=(7, 6, 1))
    coarse = nn.SparseConv2d(3, 5, 3, 2, 1)(x)
    up = nn.SparseInverseConv2d(5, 4, 3)
    want = F.conv_transpose2d(
        coarse.dense().squeeze(-1), torch_weight(up.weight, transposed=True), up.bias, 2, 1, (0, 1)
    )
    assert_same(up(coarse).features, at_sites(want.unsqueeze(-1), x))


def test_gradients_equal_finite_differences_in_double():
    x, _ = pair(shape=(3, 3, 2), dtype=torch.float64)
    net = nn.Sequential(
        nn.SparseConv3d(3, 4, 3, 2, 1),
        nn.SubMConv3d(4, 4, groups=2),
        nn.SparseInverseConv3d(4, 2, 3),
    ).double()

    def run(features, *parameters):
        names = [name for name, _ in net.named_parameters()]
        call = torch.func.functional_call(
            net, dict(zip(names, parameters, strict=True)), (x.replace(features),)
        )
        return call.features

    assert torch.autograd.gradcheck(run, (x.features, *net.parameters()))


def test_second_derivatives_of_a_convolution_are_right():
    x, _ = pair(shape=(3, 2, 2), channels=2, dtype=torch.float64)
    layer = nn.SubMConv3d(2, 2).double()

    def run(features, weight, bias):
        parameters = {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, parameters, (x.replace(features),)).features.tanh()

    assert torch.autograd.gradgradcheck(run, (x.features, layer.weight, layer.bias))


@pytest.mark.parametrize(
    "layer",
    [
        nn.SubMConv3d(3, 4),
        nn.SparseConv3d(3, 4, 3, 2, 1),
        nn.SparseConvTranspose3d(3, 4, 3, 1, 1),
        nn.GenerativeConvTranspose3d(3, 4, 2, 1),
        nn.SubMConv3d(3, 3, groups=3),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("count", [0, 1])
def test_empty_and_single_voxels_are_legal_and_give_gradients(layer, bounded, count):
    features = torch.randn(count, 3, requires_grad=True)
    coordinates = torch.tensor([[1, 2, 3, 1]] * count, dtype=torch.int32).reshape(-1, 4)
    x = SparseTensor(features, coordinates, batch_size=3, shape=(5, 6, 4) if bounded else None)
    out = layer(x)
    assert out.batch_size == 3 and out.channels == layer.out_channels
    assert (len(out) > 0) == (count > 0)
    layer.zero_grad()
    out.features.sum().backward()
    assert features.grad is not None and features.grad.shape == features.shape
    assert all(p.grad is not None and p.grad.shape == p.shape for p in layer.parameters())


def test_an_empty_sample_changes_nothing_for_the_others():
    volume = sparse_volume(batch=3)
    volume[1] = 0
    layer = nn.Sequential(nn.SubMConv3d(3, 4), nn.SparseConv3d(4, 4, 3, 2, 1))
    together = layer(SparseTensor.from_dense(volume))
    alone = [layer(SparseTensor.from_dense(volume[[b]])).features for b in (0, 2)]
    assert together.batch_size == 3
    assert torch.equal(together.features, torch.cat(alone))


def test_unbounded_grids_take_negative_indices_and_shift_with_the_input():
    x, _ = pair()
    net = nn.Sequential(nn.SubMConv3d(3, 4), nn.SparseConv3d(4, 4, 3, 2, 1))
    here = net(SparseTensor(x.features, x.coordinates))
    shift = torch.tensor([0, -8, 4, -40], dtype=torch.int32)
    there = net(SparseTensor(x.features, x.coordinates + shift))
    assert torch.equal(there.coordinates, here.coordinates + shift // 2 + torch.tensor([0, 0, 0, 0]))
    assert torch.equal(there.features, here.features)


def test_order_of_rows_does_not_matter():
    x, _ = pair()
    order = torch.randperm(len(x))
    layer = nn.SubMConv3d(3, 4)
    mixed = layer(SparseTensor(x.features[order], x.coordinates[order], shape=x.shape))
    assert torch.equal(mixed.features, layer(x).features[order])
    strided = nn.SparseConv3d(3, 4, 3, 2, 1)
    again = strided(SparseTensor(x.features[order], x.coordinates[order], shape=x.shape))
    assert torch.equal(again.coordinates, strided(x).coordinates)
    assert torch.equal(again.features, strided(x).features)


def test_maps_are_computed_once_and_shared_by_derived_tensors(monkeypatch):
    import sparse3d.sites as sites

    calls = []
    for name in ("submanifold_map", "kernel_map", "strided_sites"):
        original = getattr(sites.ops, name)
        monkeypatch.setattr(
            sites.ops, name, lambda *a, original=original, name=name: (calls.append(name), original(*a))[1]
        )
    x, _ = pair(channels=4)
    net = nn.Sequential(
        nn.SubMConv3d(4, 4), nn.BatchNorm(4), nn.ReLU(), nn.SubMConv3d(4, 4), nn.SparseConv3d(4, 4, 3, 2, 1)
    )
    a, b = net(x), net(x.replace(x.features * 2))
    assert sorted(calls) == ["kernel_map", "strided_sites", "submanifold_map"]
    assert a.sites.same_as(b.sites)
    nn.SubMConv3d(4, 4, (1, 3, 3))(x)  # another kernel is another map: no key that could be confused
    nn.SubMConv3d(4, 4, (3, 1, 3))(x)
    assert calls.count("submanifold_map") == 3


def test_layers_that_differ_in_one_number_never_share_a_map():
    # Each pair agrees in all but one of kernel, stride, padding, dilation (and output padding).
    x, volume = pair(shape=(7, 7, 7))
    for stride, padding, dilation in ((2, 1, 1), (2, 0, 1), (2, 1, 2), (1, 1, 1), (1, 0, 2)):
        layer = nn.SparseConv3d(3, 2, 3, stride, padding, dilation)
        want = F.conv3d(volume, torch_weight(layer.weight), layer.bias, stride, padding, dilation)
        out = layer(x)
        assert out.shape == tuple(want.shape[2:])
        assert_same(out.features, at_sites(want, out))
    coarse = SparseTensor(x.features, x.coordinates, stride=6, batch_size=2, shape=x.shape)
    for stride, padding, extra, dilation in (
        (2, 1, 0, 1),
        (2, 1, 1, 1),
        (2, 0, 0, 1),
        (3, 1, 0, 1),
        (2, 1, 0, 2),
    ):
        layer = nn.SparseConvTranspose3d(3, 2, 3, stride, padding, extra, dilation)
        weight = torch_weight(layer.weight, transposed=True)
        want = F.conv_transpose3d(volume, weight, layer.bias, stride, padding, extra, 1, dilation)
        out = layer(coarse)
        assert out.shape == tuple(want.shape[2:]) and out.stride == (6 // stride,) * 3
        assert_same(out.features, at_sites(want, out))
    for dilation in (1, 2):
        layer = nn.SubMConv3d(3, 2, 3, dilation)
        want = F.conv3d(volume, torch_weight(layer.weight), layer.bias, 1, dilation, dilation)
        assert_same(layer(x).features, at_sites(want, x))


def test_other_coarse_voxels_do_not_take_the_way_back_of_the_strided_layer():
    # The voxels remember the map of `down`; a pruned tensor of the same stride must not be given it.
    x, _ = pair()
    coarse = nn.SparseConv3d(3, 4, 3, 2, 1)(x).detach()
    pruned = coarse[torch.arange(len(coarse)) % 2 == 0]
    up = nn.SparseConvTranspose3d(4, 5, 3, 2, 1)
    extra = [n - (2 * m - 1) for n, m in zip(x.shape, coarse.shape, strict=True)]
    for y in (coarse, pruned):
        weight = torch_weight(up.weight, transposed=True)
        want = F.conv_transpose3d(y.dense(), weight, up.bias, 2, 1, extra)
        assert_same(up(y, target=x).features, at_sites(want, x))


def test_strides_multiply_on_the_way_down_and_divide_on_the_way_up():
    x, _ = pair()
    down = nn.SparseConv3d(3, 3, 3, (2, 1, 3), 1)
    twice = down(down(x))
    assert down(x).stride == (2, 1, 3) and twice.stride == (4, 1, 9)
    assert nn.SubMConv3d(3, 3)(twice).stride == (4, 1, 9)
    back = nn.SparseInverseConv3d(3, 3, 3)
    assert back(twice).stride == (2, 1, 3) and back(back(twice)).stride == (1, 1, 1)
    assert nn.SparseConvTranspose3d(3, 3, 3, (2, 1, 3))(twice).stride == (2, 1, 3)


def test_kernels_of_different_shape_never_share_a_map():
    # The bug of shared cache keys: a (1, 3, 3) and a (3, 1, 3) convolution on the same voxels.
    x, volume = pair()
    for kernel in ((1, 3, 3), (3, 1, 3)):
        layer = nn.SubMConv3d(3, 2, kernel)
        padding = [k // 2 for k in kernel]
        want = F.conv3d(volume, torch_weight(layer.weight), layer.bias, 1, padding)
        assert_same(layer(x).features, at_sites(want, x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    x, _ = pair(channels=16)
    layer = nn.SubMConv3d(16, 16)
    x = x.detach()
    layer.requires_grad_(False)
    half = layer.to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    exact = layer.double()(x.to(dtype).double())
    # One rounding of the result: half a unit in the last place of the largest entry.
    step = torch.finfo(dtype).eps * float(exact.features.abs().max())
    assert float((half.features.double() - exact.features).abs().max()) <= step


def test_autocast_gives_autocast_type_and_float32_weight_gradients():
    x, _ = pair(channels=8)
    layer = nn.SubMConv3d(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.features.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32


def test_a_single_tap_that_moves_voxels_is_not_mistaken_for_one_in_place():
    # Kernel 1 with padding 1 shifts by a voxel; the target has the sites of the input.
    x, volume = pair()
    layer = nn.SparseConvTranspose3d(3, 4, 1, padding=1)
    shifted = F.conv_transpose3d(
        F.pad(volume, [1] * 6), torch_weight(layer.weight, transposed=True), layer.bias
    )
    got = layer(x, target=x).features
    assert_same(got, at_sites(shifted[..., 2:, 2:, 2:], x))


@pytest.mark.parametrize("with_target", [False, True])
def test_transposed_layers_refuse_repeated_voxels_too(with_target):
    x, _ = pair()
    twice = SparseTensor(x.features[[0, 1, 0]], x.coordinates[[0, 1, 0]], stride=2)
    target = SparseTensor(x.features, x.coordinates) if with_target else None
    with pytest.raises(ValueError, match=r"coordinates\[2\].*repeats coordinates\[0\]"):
        nn.SparseConvTranspose3d(3, 4, 2, 2)(twice, target)


def test_transposed_convolution_onto_given_voxels_equals_torch_there():
    fine, _ = pair(seed=1)
    x, volume = pair(shape=(3, 3, 2), seed=2)
    x = SparseTensor(x.features, x.coordinates, stride=2, batch_size=2, shape=x.shape)
    layer = nn.SparseConvTranspose3d(3, 4, 3, 2, 1)
    want = F.conv_transpose3d(
        volume, torch_weight(layer.weight, transposed=True), layer.bias, 2, 1, (1, 0, 1)
    )
    assert_same(layer(x, fine).features, at_sites(want, fine))
    other, _ = pair(seed=3)
    assert_same(layer(x, other).features, at_sites(want, other))  # maps are kept apart by target
    with pytest.raises(ValueError, match="target has stride"):
        layer(x, SparseTensor(fine.features, fine.coordinates, stride=2))


def test_a_kernel_of_one_needs_no_map(monkeypatch):
    import sparse3d.sites as sites

    monkeypatch.setattr(sites.hashing, "build", lambda *a: pytest.fail("built a table"))
    x, _ = pair()
    layer = nn.SubMConv3d(3, 4, 1)
    assert_same(layer(x).features, x.features @ layer.weight[0, 0, 0] + layer.bias)


def test_channel_counts_of_zero_and_strided_features_are_legal():
    x, _ = pair(channels=6)
    part = x.replace(x.features[:, ::2])
    layer = nn.SubMConv3d(3, 4)
    assert torch.equal(layer(part).features, layer(part.replace(part.features.contiguous())).features)
    nothing = x.replace(x.features[:, :0])
    assert not nn.MaxPool3d(2)(nothing).features.numel()


@pytest.mark.parametrize(("channels", "groups"), [((8, 64), 1), ((8, 64), 4), ((64, 8), 2)])
def test_parameters_start_as_uniform_and_as_wide_as_torchs(channels, groups):
    layer = nn.SparseConv3d(*channels, 3, groups=groups)
    twin = torch.nn.Conv3d(*channels, 3, groups=groups)
    torch.testing.assert_close(layer.weight.abs().max(), twin.weight.abs().max(), rtol=0.02, atol=0)
    torch.testing.assert_close(layer.weight.std(), twin.weight.std(), rtol=0.1, atol=0)
    bound = (channels[0] // groups * 27) ** -0.5
    assert layer.bias.abs().max() <= bound and layer.bias.std() > bound / 4
    flat = nn.SubMConv2d(8, 64)
    torch.testing.assert_close(flat.weight.abs().max(), torch.tensor((8 * 9) ** -0.5), rtol=0.02, atol=0)


def test_clear_errors():
    x, _ = pair()
    with pytest.raises(ValueError, match="expects 5 channels, got 3"):
        nn.SubMConv3d(5, 2)(x)
    with pytest.raises(ValueError, match="groups=2 must divide"):
        nn.SubMConv3d(3, 4, groups=2)
    with pytest.raises(ValueError, match="does not fit the grid"):
        nn.SparseConv3d(3, 4, 9)(x)
    with pytest.raises(ValueError, match="kernel_size is 0"):
        nn.SubMConv3d(3, 4, 0)
    with pytest.raises(ValueError, match="stride it divides"):
        nn.SparseConvTranspose3d(3, 4, 2, 2)(x)
    with pytest.raises(ValueError, match="repeats coordinates"):
        twice = SparseTensor(x.features[[0, 0]], x.coordinates[[0, 0]])
        nn.SubMConv3d(3, 4)(twice)
