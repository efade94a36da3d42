"""DSVT as its authors name and compute it, over padded slots with nn.MultiheadAttention and in their axes
(z, y, x), against ours with converted weights."""

import math
from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.frames import DetectionBatch, LidarFrame
from sparse3d.io.convert_openpcdet import convert_openpcdet
from sparse3d.io.convert_weights import Hints, rename
from sparse3d.models.bev_res_backbone import BevResBackboneConfig
from sparse3d.models.center_head import CenterHeadConfig
from sparse3d.models.dsvt import DSVT, DSVTConfig
from sparse3d.models.dsvt_backbone import DSVTBackboneConfig
from sparse3d.models.voxel_features import DynamicVoxelFeaturesConfig
from tests.oracles.windows import slots_of_windows


def config_of(pooling: str, legacy: bool) -> DSVTConfig:
    widths = (16, 24, 24) if pooling == "linear" else (16, 16, 16)
    return DSVTConfig(
        bounds=(-8.0, -4.0, -2.0, 8.0, 4.0, 2.0),
        voxel_size=(1.0, 1.0, 0.5),
        point_channels=4,
        voxel_features=DynamicVoxelFeaturesConfig((16, 16)),
        backbone=DSVTBackboneConfig(
            channels=widths,
            feedforward=(32, 20, 32),
            heads=(4, 2, 8),
            blocks=(1, 2, 1),
            set_sizes=(5, 4, 6),
            windows=((4, 4, 8), (4, 3, 2), (3, 3, 1)),
            shifts=(((0, 0, 0), (2, 2, 0)), ((0, 0, 0), (2, 1, 1)), ((0, 0, 0), (1, 1, 0))),
            pool_strides=((1, 1, 4), (1, 2, 2)),
            pooling=pooling,  # pyright: ignore[reportArgumentType]
            legacy_pos_embed=legacy,
        ),
        bev=BevResBackboneConfig(
            layers=(0, 1), strides=(1, 2), filters=(8, 12), upsample_strides=(1, 2), upsample_filters=(6, 6)
        ),
        head=CenterHeadConfig(8, 8, norm_eps=1e-3, norm_momentum=0.01),
    )


class Embedding(nn.Module):
    def __init__(self, dims: int, channels: int):
        super().__init__()
        self.position_embedding_head = nn.Sequential(
            nn.Linear(dims, channels), nn.BatchNorm1d(channels), nn.ReLU(), nn.Linear(channels, channels)
        )


class Layer(nn.Module):
    def __init__(self, channels: int, heads: int, hidden: int):
        super().__init__()
        self.win_attn = nn.Module()
        self.win_attn.self_attn = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.win_attn.linear1, self.win_attn.linear2 = (
            nn.Linear(channels, hidden),
            nn.Linear(hidden, channels),
        )
        self.win_attn.norm1, self.win_attn.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor, position: Tensor, slots: Tensor, repeated: Tensor) -> Tensor:
        inner, located = self.win_attn, (x + position)[slots]
        attended, _ = inner.self_attn(located, located, x[slots], key_padding_mask=repeated)
        first = {}
        for place, row in enumerate(slots.flatten().tolist()):
            first.setdefault(row, place)
        out = inner.norm1(x + attended.flatten(0, 1)[[first[row] for row in range(len(x))]])
        out = inner.norm2(out + inner.linear2(F.gelu(inner.linear1(out))))
        return self.norm(out + x)


class Reduction(nn.Module):
    def __init__(self, pooling: str, channels: int, following: int, slots: int):
        super().__init__()
        if pooling == "attention":
            self.self_attn = nn.MultiheadAttention(channels, 8, batch_first=True)
            self.pos_embedding = nn.Parameter(torch.randn(slots, channels))
            self.norm = nn.LayerNorm(channels)
        elif pooling == "linear":
            self.linear1 = nn.Linear(slots * channels, following, bias=False)
            self.norm = nn.LayerNorm(following)

    def forward(self, volume: Tensor) -> Tensor:
        """(M, slots, C)."""
        best = volume.max(1, keepdim=True)[0]
        if hasattr(self, "self_attn"):
            asked, _ = self.self_attn(best, volume + self.pos_embedding, volume)
            return self.norm(asked + best)[:, 0]
        return self.norm(self.linear1(volume.flatten(1))) if hasattr(self, "linear1") else best[:, 0]


class Basic(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int, first: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1, self.bn2 = (nn.BatchNorm2d(cout, eps=1e-3) for _ in range(2))
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        if first:
            self.downsample_layer = nn.Sequential(
                nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout, eps=1e-3)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + (self.downsample_layer(x) if hasattr(self, "downsample_layer") else x))


class Theirs(nn.Module):
    """The released network by the names of its parameters, at any size; one scan, as loops."""

    def __init__(self, config: DSVTConfig):
        super().__init__()
        self.config, b, v = config, config.backbone, config.bev
        self.vfe = nn.Module()
        self.vfe.pfn_layers = nn.ModuleList()
        cin = config.point_channels + 6
        for i, width in enumerate(config.voxel_features.channels):  # pyright: ignore
            layer = nn.Module()
            half = width if i == len(config.voxel_features.channels) - 1 else width // 2  # pyright: ignore
            layer.linear, layer.norm = nn.Linear(cin, half, bias=False), nn.BatchNorm1d(half, eps=1e-3)
            self.vfe.pfn_layers.append(layer)
            cin = width
        net = self.backbone_3d = nn.Module()
        net.input_layer = nn.Module()
        embeddings = net.input_layer.posembed_layers = nn.ModuleList()
        shape = [round((config.bounds[k + 3] - config.bounds[k]) / config.voxel_size[k]) for k in range(3)]
        self.grids = [shape]
        for stage, channels in enumerate(b.channels):
            layers = (channels, b.heads[stage], b.feedforward[stage])
            blocks, norms, places = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
            for _ in range(b.blocks[stage]):
                block = nn.Module()
                block.encoder_list = nn.ModuleList(Layer(*layers) for _ in range(2))
                blocks.append(block)
                norms.append(nn.LayerNorm(channels))
                dims = 3 if self.grids[-1][2] > 1 else 2
                places.append(nn.ModuleList(Embedding(dims, channels) for _ in range(2)))
            setattr(net, f"stage_{stage}", blocks)
            setattr(net, f"residual_norm_stage_{stage}", norms)
            embeddings.append(places)
            if stage < len(b.pool_strides):
                stride = b.pool_strides[stage]
                reduction = Reduction(b.pooling, channels, b.channels[stage + 1], math.prod(stride))
                setattr(net, f"stage_{stage}_reduction", reduction)
                self.grids.append([-(-n // s) for n, s in zip(self.grids[-1], stride, strict=True)])
        maps = self.backbone_2d = nn.Module()
        maps.blocks, maps.deblocks = nn.ModuleList(), nn.ModuleList()
        cin = b.channels[-1]
        for i, filters in enumerate(v.filters):
            rest = [Basic(filters, filters, 1, False) for _ in range(v.layers[i])]
            maps.blocks.append(nn.Sequential(Basic(cin, filters, v.strides[i], True), *rest))
            up, width = int(v.upsample_strides[i]), v.upsample_filters[i]
            transposed = nn.ConvTranspose2d(filters, width, up, up, bias=False)
            maps.deblocks.append(nn.Sequential(transposed, nn.BatchNorm2d(width, eps=1e-3), nn.ReLU()))
            cin = filters
        head, cin = nn.Module(), sum(v.upsample_filters)
        self.dense_head = head
        shared = config.head.shared_channels

        def conv(cin: int, cout: int) -> nn.Sequential:
            layer = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(cout, eps=1e-3), nn.ReLU())

        outputs = {"center": 2, "center_z": 1, "dim": 3, "rot": 2, "iou": 1, "hm": len(config.classes)}
        head.shared_conv = conv(cin, shared)
        head.heads_list = nn.ModuleList([nn.ModuleDict()])
        for name, size in outputs.items():
            branch = nn.Sequential(conv(shared, shared), nn.Conv2d(shared, size, 3, padding=1))
            head.heads_list[0][name] = branch  # pyright: ignore

    def forward(self, points: Tensor) -> dict[str, Tensor]:
        """Maps (1, C, y, x) by their names."""
        cells, x = self.voxels(points)
        block_id = 0
        for stage in range(len(self.config.backbone.channels)):
            x, block_id = self.stage(stage, x, cells, block_id)
            if stage < len(self.grids) - 1:
                cells, x = self.pool(stage, x, cells)
        size_x, size_y, _ = self.grids[-1]
        bev = x.new_zeros(1, x.shape[1], size_y, size_x)
        for (cx, cy, _), row in zip(cells, x, strict=True):
            bev[0, :, cy, cx] = row
        ups = []
        for block, up in zip(self.backbone_2d.blocks, self.backbone_2d.deblocks, strict=True):
            bev = block(bev)
            ups.append(up(bev))
        shared = self.dense_head.shared_conv(torch.cat(ups, 1))
        return {name: branch(shared) for name, branch in self.dense_head.heads_list[0].items()}

    def voxels(self, points: Tensor):
        low, size = torch.tensor(self.config.bounds[:3]), torch.tensor(self.config.voxel_size)
        cells = ((points[:, :3] - low) / size).floor().long()
        members = defaultdict(list)
        for row, cell in enumerate(cells.tolist()):
            members[tuple(cell)].append(row)
        groups = list(members.values())
        mean = torch.stack([points[rows, :3].mean(0) for rows in groups])
        owner = torch.empty(len(points), dtype=torch.int64)
        for k, rows in enumerate(groups):
            owner[rows] = k
        xyz = points[:, :3]
        x = torch.cat([points, xyz - mean[owner], xyz - ((cells + 0.5) * size + low)], 1)
        for i, layer in enumerate(self.vfe.pfn_layers):
            x = F.relu(layer.norm(layer.linear(x)))
            best = torch.stack([x[rows].max(0)[0] for rows in groups])
            x = best if i == len(self.vfe.pfn_layers) - 1 else torch.cat([x, best[owner]], 1)
        return list(members), x

    def stage(self, stage: int, x: Tensor, cells, block_id: int):
        b, grid = self.config.backbone, self.grids[stage]
        coordinates = torch.tensor([[0, *cell] for cell in cells])
        window = list(b.windows[stage])
        wide = [w * f for w, f in zip(window, b.hybrid_factor, strict=True)]
        shapes = [window, wide]
        found = [
            slots_of_windows(coordinates, grid, shapes[s], list(b.shifts[stage][s]), b.set_sizes[stage])
            for s in range(2)
        ]
        for i, block in enumerate(getattr(self.backbone_3d, f"stage_{stage}")):
            before, shift = x, block_id % 2
            for k, layer in enumerate(block.encoder_list):
                slots = torch.tensor([rows for _, rows in found[shift][0][k]])
                repeated = torch.zeros_like(slots, dtype=torch.bool)
                repeated[:, 1:] = slots[:, 1:] == slots[:, :-1]
                which = k if b.legacy_pos_embed else shift
                place = torch.tensor(found[which][1])
                embed = self.backbone_3d.input_layer.posembed_layers[stage][i][k].position_embedding_head
                dims = 3 if grid[2] > 1 else 2
                location = place[:, :dims] - torch.tensor(shapes[which][:dims]) / 2
                x = layer(x, embed(location.to(x.dtype)), slots, repeated)
            x = getattr(self.backbone_3d, f"residual_norm_stage_{stage}")[i](x + before)
            block_id += 1
        return x, block_id

    def pool(self, stage: int, x: Tensor, cells):
        sx, sy, sz = self.config.backbone.pool_strides[stage]
        members = defaultdict(list)
        for row, (cx, cy, cz) in enumerate(cells):
            slot = cx % sx * sy * sz + cy % sy * sz + cz % sz
            members[(cx // sx, cy // sy, cz // sz)].append((slot, row))
        volume = x.new_zeros(len(members), sx * sy * sz, x.shape[1])
        for k, pairs in enumerate(members.values()):
            for slot, row in pairs:
                volume[k, slot] = x[row]
        return list(members), getattr(self.backbone_3d, f"stage_{stage}_reduction")(volume)


def points() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    low, high = torch.tensor([-8.0, -4, -2, 0]), torch.tensor([8.0, 4, 2, 1])
    return torch.rand(400, 4, generator=generator) * (high - low) + low


def theirs_of(config: DSVTConfig) -> Theirs:
    torch.manual_seed(0)
    theirs = Theirs(config)
    # Of order one everywhere, so that no part of the network drowns in another.
    for name, tensor in theirs.state_dict().items():
        if tensor.dim() > 1:
            tensor.normal_(std=1.5 / math.sqrt(tensor[0].numel()))
        elif name.endswith(("weight", "var")):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.3)
    return theirs.eval()


def ours_of(config: DSVTConfig, state: dict[str, Tensor]) -> DSVT:
    entries = rename(convert_openpcdet(state, Hints(), "x.pth"), {}, "x.pth")
    ours = DSVT(config)
    ours.load_state_dict(
        {entry.name: entry.tensor for entry in entries if entry.name and entry.tensor is not None}
    )
    return ours.eval()


@pytest.mark.parametrize("pooling", ["attention", "linear", "maxpool"])
@pytest.mark.parametrize("legacy", [True, False])
@torch.no_grad()
def test_our_network_computes_what_theirs_does(pooling, legacy):
    config = config_of(pooling, legacy)
    theirs = theirs_of(config)
    ours = ours_of(config, theirs.state_dict())
    scan = points()
    frame = LidarFrame("0", scan.numpy(), torch.zeros(0, 7).numpy(), torch.zeros(0).long().numpy())
    want, got = theirs(scan), ours(DetectionBatch.collate([frame])).groups[0]._asdict()
    for name, key in (
        ("heatmap", "hm"),
        ("z", "center_z"),
        *((n, n) for n in ("center", "dim", "rot", "iou")),
    ):
        torch.testing.assert_close(got[name], want[key].transpose(2, 3), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_places_that_layers_embed_matter():
    """Or the test above could not tell the released weights' positions from ours."""
    config = config_of("attention", legacy=True)
    state = theirs_of(config).state_dict()
    frame = LidarFrame("0", points().numpy(), torch.zeros(0, 7).numpy(), torch.zeros(0).long().numpy())
    maps = [
        ours_of(config_of("attention", legacy), state)(DetectionBatch.collate([frame])).groups[0].heatmap
        for legacy in (True, False)
    ]
    assert (maps[0] - maps[1]).abs().max() > 1e-3


def test_what_has_no_twin_is_told():
    state = theirs_of(config_of("attention", True)).state_dict()
    state["dense_head.decoder.self_attn2.in_proj_weight"] = torch.zeros(3, 1)
    state["global_step"] = torch.zeros(1)
    entries = {entry.source: entry for entry in convert_openpcdet(state, Hints(), "x.pth")}
    assert list(entries) == list(state)
    skipped = [name for name, entry in entries.items() if entry.what == "skipped: no twin"]
    assert skipped == ["dense_head.decoder.self_attn2.in_proj_weight", "global_step"]
