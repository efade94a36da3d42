"""OpenPCDet's backbones, computed densely in their axes (z, y, x), against ours with converted weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.errors import DataError
from sparse3d.io.convert_openpcdet import convert_openpcdet
from sparse3d.io.convert_weights import Hints, rename
from sparse3d.models.anchor_head import AnchorHeadConfig
from sparse3d.models.anchors import KITTI_ANCHORS
from sparse3d.models.bev_backbone import BevBackbone, BevBackboneConfig
from sparse3d.models.roi_head import RoiHeadConfig
from sparse3d.models.voxel_backbone import VoxelBackbone, VoxelBackbone8xConfig, VoxelResBackbone8xConfig
from sparse3d.models.voxel_rcnn import VoxelRCNN, VoxelRCNNConfig
from sparse3d.models.voxel_roi_pool import PoolLevelConfig, VoxelRoiPoolConfig
from sparse3d.tensor import SparseTensor

SHAPE = (16, 32, 41)  # x, y, z of ours
POINT_CHANNELS = 4


class Theirs:
    """A checkpoint with OpenPCDet's names, and the network that it stands for, as dense convolutions."""

    def __init__(self, spconv: str, residual: bool):
        self.spconv, self.residual = spconv, residual
        self.state: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)
        self.mask = torch.zeros(0)

    def random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def norm(self, name: str, x: Tensor) -> Tensor:
        keys = ("running_mean", "running_var", "weight", "bias")
        if f"{name}.weight" not in self.state:
            values = [self.random(x.shape[1]) for _ in keys]
            values[1] = values[1].square() + 0.5
            self.state |= {f"{name}.{key}": value for key, value in zip(keys, values, strict=True)}
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(3)
        return F.batch_norm(x, *(self.state[f"{name}.{key}"] for key in keys), eps=1e-3)

    def sparse(self, name: str, x: Tensor, cout: int, kernel=(3, 3, 3), stride=None, padding=1, bias=False):
        """A sparse convolution on a dense volume (B, C, z, y, x): where no site is active stays zero."""
        cin = x.shape[1]
        weight = self.random(*kernel, cin, cout) / (5 * cin) ** 0.5
        self.state[f"{name}.weight"] = weight if self.spconv == "1" else weight.permute(4, 0, 1, 2, 3)
        dense = weight.permute(4, 3, 0, 1, 2)
        if stride is None:
            out = F.conv3d(x, dense, padding=tuple(k // 2 for k in kernel))
        else:
            out = F.conv3d(x, dense, stride=stride, padding=padding)
            self.mask = F.conv3d(
                self.mask, torch.ones(1, 1, *kernel).double(), stride=stride, padding=padding
            )
            self.mask = (self.mask > 0).double()
        if bias:
            self.state[f"{name}.bias"] = self.random(cout)
            out = out + self.state[f"{name}.bias"][:, None, None, None]
        return out

    def block(self, name: str, x: Tensor, cout: int, **arguments) -> Tensor:
        return self.norm(f"{name}.1", self.sparse(f"{name}.0", x, cout, **arguments)).relu() * self.mask

    def basic(self, name: str, x: Tensor) -> Tensor:
        out = (
            self.norm(f"{name}.bn1", self.sparse(f"{name}.conv1", x, x.shape[1], bias=True)).relu()
            * self.mask
        )
        out = self.norm(f"{name}.bn2", self.sparse(f"{name}.conv2", out, x.shape[1], bias=True)) * self.mask
        return (out + x).relu()

    def backbone_3d(self, volume: Tensor, mask: Tensor, channels: tuple[int, ...]) -> Tensor:
        """(B, C, z, y, x) -> (B, C * z, y, x)."""
        self.mask = mask
        x = self.block("backbone_3d.conv_input", volume, 16)
        layer = self.basic if self.residual else lambda name, x: self.block(name, x, x.shape[1])
        for stage, width in enumerate(channels):
            at = f"backbone_3d.conv{stage + 1}"
            if stage:
                padding = (0, 1, 1) if stage == 3 else 1
                x = self.block(f"{at}.0", x, width, stride=2, padding=padding)
            for i in range(2 if stage or self.residual else 1):
                x = layer(f"{at}.{i + bool(stage)}", x)
        x = self.block("backbone_3d.conv_out", x, 128, kernel=(3, 1, 1), stride=(2, 1, 1), padding=0)
        return x.flatten(1, 2)

    def backbone_2d(self, bev: Tensor) -> Tensor:
        """Two levels of one further layer each; each level begins with a padding layer."""
        ups = []
        for level, (width, stride) in enumerate(((8, 1), (12, 2))):
            for j in range(2):
                name = f"backbone_2d.blocks.{level}.{1 + 3 * j}"
                weight = self.state[f"{name}.weight"] = self.random(width, bev.shape[1], 3, 3) / 10
                bev = F.conv2d(bev, weight, stride=1 if j else stride, padding=1)
                bev = self.norm(f"backbone_2d.blocks.{level}.{2 + 3 * j}", bev).relu()
            name = f"backbone_2d.deblocks.{level}"
            weight = self.state[f"{name}.0.weight"] = self.random(width, 6, stride, stride)
            up = F.conv_transpose2d(bev, weight, stride=stride)
            ups.append(self.norm(f"{name}.1", up).relu())
        return torch.cat(ups, 1)


def voxels() -> SparseTensor:
    generator = torch.Generator().manual_seed(2)
    sites = torch.stack([torch.randint(0, n, (200,), generator=generator) for n in (2, *SHAPE)], 1).unique(
        dim=0
    )
    features = torch.randn(len(sites), POINT_CHANNELS, generator=generator, dtype=torch.float64)
    return SparseTensor(features, sites.int(), batch_size=2, shape=SHAPE)


def zyx(volume: Tensor) -> Tensor:
    return volume.transpose(2, 4)


@pytest.fixture(scope="module", params=[("1", False), ("2", False), ("2", True)], ids=str)
def pair(request):
    """A checkpoint of theirs, their maps, and our config for it."""
    spconv, residual = request.param
    config = VoxelResBackbone8xConfig() if residual else VoxelBackbone8xConfig()
    theirs, x = Theirs(spconv, residual), voxels()
    mask = x.replace(torch.ones(len(x.features), 1).double()).dense()
    bev = theirs.backbone_3d(zyx(x.dense()), zyx(mask), config.channels)
    maps = theirs.backbone_2d(bev)
    theirs.state["dense_head.shared_conv.0.weight"] = torch.zeros(18, 12, 1, 1)
    return theirs.state, config, bev, maps


def converted(state, **renames) -> dict[str, Tensor]:
    entries = rename(convert_openpcdet(state, Hints(), "x.pth"), renames, "x.pth")
    return {entry.name: entry.tensor for entry in entries if entry.name is not None}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def test_our_backbones_compute_what_theirs_do(pair):
    state, config, want_bev, want_maps = pair
    tensors = converted(state)
    backbone = VoxelBackbone(POINT_CHANNELS, SHAPE, config).double().eval()
    backbone.load_state_dict(part(tensors, "backbone."))  # strict
    bev = backbone(voxels())
    torch.testing.assert_close(bev, want_bev.transpose(2, 3))

    two_levels = BevBackboneConfig(
        layers=(1, 1), filters=(8, 12), upsample_strides=(1, 2), upsample_filters=(6, 6)
    )
    network = BevBackbone(backbone.out_channels, two_levels).double().eval()
    network.load_state_dict(part(tensors, "bev."))
    torch.testing.assert_close(network(bev), want_maps.transpose(2, 3))


def test_what_was_done_with_each_tensor_is_told(pair):
    state, config, _, _ = pair
    entries = {entry.source: entry for entry in convert_openpcdet(state, Hints(), "x.pth")}
    assert list(entries) == list(state)
    assert entries["dense_head.shared_conv.0.weight"].what == "skipped: no twin"
    assert entries["backbone_3d.conv_out.0.weight"].what == "converted, axes reversed"
    assert entries["backbone_3d.conv_out.0.weight"].tensor.shape[:3] == (1, 1, 3)
    if isinstance(config, VoxelResBackbone8xConfig):
        mean = "backbone_3d.conv1.0.bn1.running_mean"
        assert entries["backbone_3d.conv1.0.conv1.bias"].what == f"folded into {mean}"
        assert entries[mean].what == "kept, less the bias of its convolution"


def test_layers_and_layouts_without_a_twin_are_refused(pair):
    state, _, _, _ = pair
    with pytest.raises(DataError, match="conv5.0.1.running_mean belongs to no layer of VoxelBackBone8x"):
        converted({**state, "backbone_3d.conv5.0.1.running_mean": torch.zeros(3)})
    with pytest.raises(DataError, match=r"no tensor is named backbone_3d\.\*"):
        converted(part(state, "backbone_3d."))
    name = "backbone_3d.conv_input.0.weight"
    with pytest.raises(DataError, match="fit neither spconv 1 nor spconv 2"):
        converted({**state, name: state[name].transpose(0, 4).transpose(3, 4)})
    with pytest.raises(DataError, match="the 1 sparse weights of backbone_3d fit both"):
        converted({"backbone_3d.conv_input.0.weight": torch.zeros(3, 3, 3, 3, 3)})


def test_names_can_be_changed_on_the_way(pair):
    assert "net.stem.0.weight" in converted(pair[0], **{"backbone.": "net."})


def two_stage_state(config: VoxelRCNNConfig, theirs: Theirs) -> dict[str, Tensor]:
    """The heads of Voxel R-CNN as OpenPCDet names and shapes them."""
    state: dict[str, Tensor] = {}

    def layer(name: str, *shape: int, norm: str | None = None) -> None:
        state[f"{name}.weight"] = theirs.random(*shape) / 4
        if norm is None:
            state[f"{name}.bias"] = theirs.random(shape[0])
            return
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{leaf}"] = theirs.random(shape[0])
        state[f"{norm}.running_var"] = state[f"{norm}.running_var"].square() + 0.5
        state[f"{norm}.num_batches_tracked"] = torch.tensor(3)

    anchors, bev = 2 * len(config.classes), config.bev.out_channels
    layer("dense_head.conv_cls", anchors * len(config.classes), bev, 1, 1)
    layer("dense_head.conv_box", anchors * 7, bev, 1, 1)
    layer("dense_head.conv_dir_cls", anchors * 2, bev, 1, 1)
    for k, level in enumerate(config.pool.levels):
        at, (middle, out) = f"roi_head.roi_grid_pool_layers.{k}", level.channels
        layer(f"{at}.mlps_in.0.0", middle, config.backbone.channels[level.stage], 1, norm=f"{at}.mlps_in.0.1")
        layer(f"{at}.mlps_pos.0.0", middle, 3, 1, 1, norm=f"{at}.mlps_pos.0.1")
        layer(f"{at}.mlps_out.0.0", out, middle, 1, norm=f"{at}.mlps_out.0.1")
    last = config.pool.out_channels
    for part, widths in (
        ("shared_fc_layer", config.roi_head.shared),
        ("cls_fc_layers", config.roi_head.score),
        ("reg_fc_layers", config.roi_head.box),
    ):
        channels = last
        for i, width in enumerate(widths):  # linear, norm, ReLU, dropout
            layer(f"roi_head.{part}.{4 * i}", width, channels, norm=f"roi_head.{part}.{4 * i + 1}")
            channels = width
        last = channels if part == "shared_fc_layer" else last
    layer("roi_head.cls_pred_layer", 1, config.roi_head.score[-1])
    layer("roi_head.reg_pred_layer", 7, config.roi_head.box[-1])
    return state


def test_all_of_voxel_rcnn_has_a_twin_and_its_heads_compute_the_same(pair):
    state, backbone, _, _ = pair
    config = VoxelRCNNConfig(
        classes=("Car",),
        bounds=(0.0, -1.6, 0.0, 1.6, 1.6, 4.0),  # 16 x 32 x 40 voxels, and one to spare
        voxel_size=(0.1, 0.1, 0.1),
        backbone=backbone,
        bev=BevBackboneConfig(
            layers=(1, 1), filters=(8, 12), upsample_strides=(1, 2), upsample_filters=(6, 6)
        ),
        head=AnchorHeadConfig(anchors=KITTI_ANCHORS[:1], places="corners"),
        pool=VoxelRoiPoolConfig(
            grid=2,
            levels=(PoolLevelConfig(1, 0.8, channels=(6, 5)), PoolLevelConfig(3, 1.6, channels=(4, 3))),
        ),
        roi_head=RoiHeadConfig((10, 8), (7, 6), (5, 4)),
    )
    theirs = Theirs("2", False)
    heads = two_stage_state(config, theirs)
    tensors = converted({**{k: v for k, v in state.items() if "shared_conv" not in k}, **heads})
    model = VoxelRCNN(config).double().eval()
    model.load_state_dict(tensors)  # strict

    maps = theirs.random(1, 12, 4, 2)  # (B, C, y, x)
    out = F.conv2d(maps, heads["dense_head.conv_box.weight"], heads["dense_head.conv_box.bias"])
    want = out.reshape(2, 7, 4, 2).permute(3, 2, 0, 1).reshape(-1, 7)  # anchors in the order x, y, rotation
    torch.testing.assert_close(model.head(maps.transpose(2, 3)).codes[0], want)

    def layers(part: str, x: Tensor, count: int) -> Tensor:
        for i in range(0, 4 * count, 4):
            at = f"roi_head.{part}"
            norm = [
                heads[f"{at}.{i + 1}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
            ]
            x = F.batch_norm(F.linear(x, heads[f"{at}.{i}.weight"]), *norm).relu()
        return x

    features = theirs.random(9, config.pool.out_channels)
    shared = layers("shared_fc_layer", features, 2)
    score, box = (
        F.linear(layers(part, shared, 2), heads[f"roi_head.{out}.weight"], heads[f"roi_head.{out}.bias"])
        for part, out in (("cls_fc_layers", "cls_pred_layer"), ("reg_fc_layers", "reg_pred_layer"))
    )
    got = model.roi_head(features)
    torch.testing.assert_close(got.scores, score[:, 0])
    torch.testing.assert_close(got.codes, box)
    way = tensors["pool.levels.1.way.0.weight"]
    assert torch.equal(way, heads["roi_head.roi_grid_pool_layers.1.mlps_pos.0.0.weight"][:, :, 0, 0])
