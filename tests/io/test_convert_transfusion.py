"""TransFusion's head as OpenPCDet names and computes it, over (y, x) maps and lists of channels first,
against ours with converted weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.io.convert_dsvt import convert_dsvt
from sparse3d.models.center_code import BevGrid
from sparse3d.models.transfusion_head import TransFusionHead, TransFusionHeadConfig

CLASSES = ("Car", "Truck", "Cone")
SIZE = (9, 7)  # cells along x and y
CONFIG = TransFusionHeadConfig(
    queries=15,
    channels=16,
    heads=4,
    feedforward=20,
    branch_channels=12,
    crowded=("Cone",),
    velocity_branch=True,
    iou_branch=True,
)
OUTPUTS = {"center": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2, "iou": 1, "heatmap": len(CLASSES)}


class Embedding(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.position_embedding_head = nn.Sequential(
            nn.Conv1d(2, channels, 1), nn.BatchNorm1d(channels), nn.ReLU(), nn.Conv1d(channels, channels, 1)
        )

    def forward(self, places: Tensor) -> Tensor:
        """(B, N, 2) -> (N, B, C), as their attention wants it."""
        return self.position_embedding_head(places.transpose(1, 2)).permute(2, 0, 1)


class Decoder(nn.Module):
    def __init__(self, c: int, heads: int, hidden: int):
        super().__init__()
        self.self_posembed, self.cross_posembed = Embedding(c), Embedding(c)
        self.self_attn, self.multihead_attn = nn.MultiheadAttention(c, heads), nn.MultiheadAttention(c, heads)
        self.linear1, self.linear2 = nn.Linear(c, hidden), nn.Linear(hidden, c)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(c), nn.LayerNorm(c), nn.LayerNorm(c)

    def forward(self, query: Tensor, at: Tensor, key: Tensor, places: Tensor) -> Tensor:
        """(B, C, P), (B, P, 2), (B, C, N), (B, N, 2)."""
        here, there = self.self_posembed(at), self.cross_posembed(places)
        query, key = query.permute(2, 0, 1), key.permute(2, 0, 1) + there
        query = self.norm1(query + self.self_attn(query + here, query + here, query + here)[0])
        query = self.norm2(query + self.multihead_attn(query + here, key, key)[0])
        query = self.norm3(query + self.linear2(F.relu(self.linear1(query))))
        return query.permute(1, 2, 0)


class Block(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(c, c, 3, padding=1, bias=False), nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Theirs(nn.Module):
    def __init__(self, cin: int):
        super().__init__()
        c, hidden = CONFIG.channels, CONFIG.branch_channels
        self.shared_conv = nn.Conv2d(cin, c, 3, padding=1)
        self.heatmap_head = nn.Sequential(Block(c), nn.Conv2d(c, len(CLASSES), 3, padding=1))
        self.class_encoding = nn.Conv1d(len(CLASSES), c, 1)
        self.decoder = Decoder(c, CONFIG.heads, CONFIG.feedforward)
        self.prediction_head = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Sequential(nn.Conv1d(c, hidden, 1, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()),
                    nn.Conv1d(hidden, outputs, 1),
                )
                for name, outputs in OUTPUTS.items()
            }
        )

    def forward(self, bev: Tensor) -> dict[str, Tensor]:
        """(B, C, y, x) -> what each branch says (B, P, n), and the cells (B, P, 2), x and y."""
        maps = self.shared_conv(bev)
        dense = self.heatmap_head(maps)
        heatmap, columns = dense.sigmoid(), SIZE[0]
        best = F.max_pool2d(heatmap, 3, 1, 1)
        best[:, CLASSES.index("Cone")] = heatmap[:, CLASSES.index("Cone")]
        peaks = (heatmap * (heatmap == best)).flatten(2)
        top = peaks.flatten(1).topk(CONFIG.queries)[1]
        label, cell = top // peaks.shape[2], top % peaks.shape[2]
        features = maps.flatten(2)
        query = features.gather(2, cell[:, None].expand(-1, features.shape[1], -1))
        query = query + self.class_encoding(F.one_hot(label, len(CLASSES)).transpose(1, 2).to(query.dtype))
        at = torch.stack([cell % columns, cell // columns], 2) + 0.5
        every = torch.arange(features.shape[2])
        places = (torch.stack([every % columns, every // columns], 1) + 0.5)[None].expand(len(bev), -1, -1)
        query = self.decoder(query, at.to(bev), features, places.to(bev))
        said = {name: branch(query).transpose(1, 2) for name, branch in self.prediction_head.items()}
        said["center"] = said["center"] + at
        return said | {"label": label, "dense": dense}


@pytest.fixture(scope="module")
def pair() -> tuple[Theirs, TransFusionHead]:
    torch.manual_seed(0)
    theirs = Theirs(10).double().eval()
    for module in theirs.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    state = {f"dense_head.{name}": tensor for name, tensor in theirs.state_dict().items()}
    entries = convert_dsvt(state)
    assert all(entry.name is not None for entry in entries)
    grid = BevGrid((0.0, 0.0, -2.0, 9.0, 7.0, 2.0), (1.0, 1.0), SIZE)
    ours = TransFusionHead(10, CLASSES, grid, CONFIG).double().eval()
    ours.load_state_dict({entry.name.removeprefix("head."): entry.tensor for entry in entries})  # strict
    return theirs, ours


@torch.no_grad()
def test_our_head_computes_what_theirs_does(pair):
    theirs, ours = pair
    bev = torch.randn(2, 10, *SIZE, dtype=torch.float64)
    got, want = ours(bev), theirs(bev.transpose(2, 3))
    torch.testing.assert_close(got.heatmap, want["dense"].transpose(2, 3))
    assert torch.equal(got.labels, want["label"])

    def same(values: Tensor, name: str) -> None:
        torch.testing.assert_close(values.double(), want[name], rtol=1e-5, atol=1e-5)

    same(got.scores, "heatmap")
    same(got.code[..., :2], "center")
    same(got.code[..., 2:3], "height")
    same(got.code[..., 3:6], "dim")
    same(got.code[..., 6:].flip(-1), "rot")  # theirs is (sin, cos)
    same(got.velocity, "vel")
    same(got.iou[..., None], "iou")
