"""Networks in the style of public ones, written against spconv's interface alone: `lib` is spconv or the
stand-in.

This file is also run by interpreters that have torch and spconv and nothing else: it imports nothing of
sparse3d. Each case of `CASES` makes a network and says what it takes; `run` gives everything that two
libraries must agree on.
"""

from collections import OrderedDict
from functools import partial

import torch
from torch import nn

norm = partial(nn.BatchNorm1d, eps=1e-3, momentum=0.01)


def block(lib, conv, *arguments, **named):
    """Convolution without bias, batch norm, ReLU."""
    layer = getattr(lib, conv)(*arguments, bias=False, **named)
    return lib.SparseSequential(layer, norm(layer.out_channels), nn.ReLU())


def residual_block(lib, conv, channels, key):
    class Residual(lib.SparseModule):
        def __init__(self):
            super().__init__()
            for n in "12":
                layer = getattr(lib, conv)(channels, channels, 3, 1, 1, bias=True, indice_key=key)
                setattr(self, "conv" + n, layer)
                setattr(self, "bn" + n, norm(channels))
            self.relu = nn.ReLU()

        def forward(self, x):
            out = self.conv1(x)
            out = out.replace_feature(self.relu(self.bn1(out.features)))
            out = self.conv2(out)
            out = out.replace_feature(self.bn2(out.features) + x.features)
            return out.replace_feature(self.relu(out.features))

    return Residual()


class Stages(nn.Module):
    """Stage after stage; gives every stage's tensor."""

    def __init__(self, *stages):
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x):
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def voxel_backbone(lib):
    """Three halvings, then a squeeze of z, then a dense map: the plain LiDAR backbone."""
    return Stages(
        block(lib, "SubMConv3d", 4, 8, 3, padding=1, indice_key="subm1"),
        lib.SparseSequential(
            block(lib, "SparseConv3d", 8, 12, 3, stride=2, padding=1, indice_key="spconv2"),
            block(lib, "SubMConv3d", 12, 12, 3, padding=1, indice_key="subm2"),
            block(lib, "SubMConv3d", 12, 12, 3, padding=1, indice_key="subm2"),
        ),
        block(lib, "SparseConv3d", 12, 16, 3, stride=2, padding=(0, 1, 1), indice_key="spconv3"),
        block(lib, "SparseConv3d", 16, 16, (3, 1, 1), stride=(2, 1, 1), padding=0, indice_key="down"),
        lib.ToDense(),
    )


def residual_backbone(lib):
    """Residual blocks with biases, and convolutions without padding."""
    return Stages(
        block(lib, "SubMConv3d", 4, 8, 3, padding=1, indice_key="subm1"),
        residual_block(lib, "SubMConv3d", 8, "res1"),
        block(lib, "SparseConv3d", 8, 8, 2, stride=2, indice_key="spconv2"),
        residual_block(lib, "SubMConv3d", 8, "res2"),
    )


def pillar_backbone(lib):
    """The same in two axes."""
    return Stages(
        residual_block(lib, "SubMConv2d", 4, "res1"),
        block(lib, "SparseConv2d", 4, 8, 3, stride=2, padding=1, indice_key="spconv2"),
        residual_block(lib, "SubMConv2d", 8, "res2"),
        block(lib, "SparseConv2d", 8, 8, 3, stride=2, padding=1, indice_key="spconv3"),
        lib.ToDense(),
    )


class UNet(nn.Module):
    """Down, down, up, up by inverse convolutions, with skips; a pointwise head with a bias."""

    def __init__(self, lib):
        super().__init__()
        self.stem = block(lib, "SubMConv3d", 4, 8, 5, padding=1, indice_key="stem")
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for s, (fine, coarse) in enumerate([(8, 12), (12, 16)]):
            self.down.append(block(lib, "SparseConv3d", fine, coarse, 2, stride=2, indice_key=f"down{s}"))
            self.up.append(block(lib, "SparseInverseConv3d", coarse, fine, 2, indice_key=f"down{s}"))
            named = OrderedDict(
                mix=lib.SubMConv3d(2 * fine, fine, 1, bias=False),
                norm=norm(fine),
                conv=lib.SubMConv3d(fine, fine, 3, padding=1, indice_key=f"subm{s}"),
            )
            self.decoder.append(lib.SparseSequential(named))
        self.head = lib.SubMConv3d(8, 5, kernel_size=1, padding=1, bias=True)

    def forward(self, x):
        x = self.stem(x)
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up, decoder in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x, skip = up(x), skips.pop()
            x = decoder(x.replace_feature(torch.cat([x.features, skip.features], dim=1)))
        return [self.head(x)]


class MergedScales(nn.Module):
    """Coarse voxels put into the finer grid by writing to their indices, merged by column, then two axes."""

    def __init__(self, lib):
        super().__init__()
        self.lib = lib
        self.fine = block(lib, "SubMConv3d", 4, 8, 3, padding=1, indice_key="subm1")
        self.coarse = block(lib, "SparseConv3d", 8, 8, 3, stride=2, padding=1, indice_key="spconv2")
        self.coarser = block(lib, "SparseConv3d", 8, 8, 3, stride=2, padding=1, indice_key="spconv3")
        self.out = block(lib, "SparseConv2d", 8, 8, 3, stride=1, padding=1, indice_key="out")
        self.shared = lib.SparseSequential(lib.SubMConv2d(8, 8, 3, padding=1, bias=True), nn.ReLU(True))

    def forward(self, x):
        fine = self.fine(x)
        coarse = self.coarse(fine)
        coarser = self.coarser(coarse)
        coarse.indices[:, 1:] *= 2
        coarser.indices[:, 1:] *= 4
        merged = fine.replace_feature(torch.cat([fine.features, coarse.features, coarser.features]))
        merged.indices = torch.cat([fine.indices, coarse.indices, coarser.indices])
        columns, inverse = torch.unique(merged.indices[:, [0, 2, 3]], dim=0, return_inverse=True)
        summed = merged.features.new_zeros(len(columns), merged.features.shape[1])
        summed = summed.index_add(0, inverse, merged.features)
        bev = self.lib.SparseConvTensor(summed, columns, merged.spatial_shape[1:], merged.batch_size)
        return [self.shared(self.out(bev))]


class Branches(nn.Module):
    """Pooling and its way back, tables, sums of unequal voxels, a transposed convolution."""

    def __init__(self, lib):
        super().__init__()
        self.functional = lib.functional
        self.pool = lib.SparseMaxPool3d(2, indice_key="pool")
        self.back = lib.SparseInverseConv3d(4, 4, 2, indice_key="pool")
        self.tables = lib.SparseSequential(
            lib.ConcatTable().add(lib.SubMConv3d(4, 4, 3, indice_key="a")).add(lib.Identity()),
            lib.AddTable(),
        )
        self.wide = lib.SparseConv3d(4, 4, 3, 1, 1, dilation=1)
        self.transposed = lib.SparseConvTranspose3d(4, 3, 3, 2, 1, indice_key="up")
        self.back_down = lib.SparseInverseConv3d(3, 4, 3, indice_key="up")
        self.max_overlapping = lib.SparseMaxPool3d(3, 2, 1)

    def forward(self, x):
        tabled = self.tables(x)
        pooled = self.pool(tabled)
        total = self.functional.sparse_add(self.back(pooled), self.wide(x), x.minus())
        finer = self.transposed(pooled)
        return [total, finer, self.back_down(finer), self.max_overlapping(tabled)]


def one_axis(lib):
    return Stages(
        lib.SubMConv1d(4, 8, 3, indice_key="a"),
        lib.SparseConv1d(8, 8, 3, 2, 1, indice_key="b"),
        lib.SparseInverseConv1d(8, 4, 3, indice_key="b"),
        lib.SparseConvTranspose1d(4, 4, 3, 2, 1),
        lib.SparseMaxPool1d(3, 2, 1),
    )


def four_axes(lib):
    return Stages(
        lib.SubMConv4d(4, 8, 3, indice_key="a"),
        lib.SparseConv4d(8, 8, (3, 3, 2, 3), 2, 1, indice_key="b"),
        lib.SubMConv4d(8, 8, 3, dilation=2),
        lib.SparseInverseConv4d(8, 4, (3, 3, 2, 3), indice_key="b"),
        lib.SparseMaxPool4d(2),
        lib.SparseConvTranspose4d(4, 4, 2, 2),
    )


DTYPE = torch.float64

# name -> (network, spatial_shape, share of active voxels)
CASES = {
    "voxel backbone": (voxel_backbone, (17, 16, 14), 0.1),
    "residual backbone": (residual_backbone, (9, 12, 10), 0.15),
    "pillar backbone": (pillar_backbone, (30, 27), 0.2),
    "u-net": (UNet, (13, 12, 14), 0.15),
    "merged scales": (MergedScales, (9, 17, 13), 0.1),
    "branches": (Branches, (8, 9, 7), 0.2),
    "one axis": (one_axis, (60,), 0.3),
    "four axes": (four_axes, (5, 6, 5, 7), 0.15),
}


def run(lib, name, state=None):
    """State dict, outputs at sorted voxels, gradients of input and parameters, and running statistics."""
    make, shape, share = CASES[name]
    generator = torch.Generator().manual_seed(7)
    indices = (torch.rand(2, *shape, generator=generator) < share).nonzero().int()
    indices = indices[torch.randperm(len(indices), generator=generator)]
    features = torch.randn(len(indices), 4, generator=generator, dtype=DTYPE).requires_grad_()
    torch.manual_seed(0)
    network = make(lib).to(DTYPE)
    if state is not None:
        network.load_state_dict(state)
    result = {f"state {k}": v.clone() for k, v in network.state_dict().items()}
    outputs = network(lib.SparseConvTensor(features, indices, list(shape), 2))
    loss = 0.0
    for n, out in enumerate(outputs):
        values, order = out, slice(None)
        if not isinstance(out, torch.Tensor):
            cell = torch.zeros(len(out.indices), dtype=torch.int64)
            for axis, size in enumerate([out.batch_size, *out.spatial_shape]):
                cell = cell * size + out.indices[:, axis]
            order = cell.argsort()
            result[f"indices {n}"] = out.indices[order].clone()
            result[f"shape {n}"] = torch.tensor(out.spatial_shape)
            values = out.features
        values = values[order]
        result[f"features {n}"] = values.detach().clone()
        loss = loss + (values * torch.randn(values.shape, generator=generator, dtype=DTYPE)).sum() / len(
            values
        )
    loss.backward()
    result["gradient of the input"] = features.grad
    result |= {f"gradient of {k}": p.grad for k, p in network.named_parameters()}
    result |= {f"after {k}": v.clone() for k, v in network.named_buffers()}
    return result


def voxelized(point_to_voxel):
    """Voxels of a cloud with points on cell borders, plenty of room and little, in both precisions."""
    result = {}
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(20000, 4, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 3, 1, 1])
    points[::7, :3] = (points[::7, :3] / 0.1).round() * 0.1
    limits = [-5.0, -5.3, -3, 5, 5, 1]
    for name, size, most_voxels, most_points in [
        ("all", [0.1, 0.1, 0.2], 50000, 5),
        ("few", [0.3, 0.7, 0.11], 500, 2),
    ]:
        for dtype in (torch.float32, torch.float64):
            cells = point_to_voxel(size, limits, 4, most_voxels, most_points, torch.device("cpu"))
            parts = cells.generate_voxel_with_id(points.to(dtype))
            result |= {f"{name} {dtype} {part}": tensor for part, tensor in enumerate(parts)}
            result[f"{name} {dtype} grid"] = torch.tensor(cells.grid_size)
    return result
