"""TransFusion's head for LiDAR: a heatmap's peaks become queries, which attend to each other and to the map.

    BEV map -> shared 3x3 -+-> heatmap -> peaks of all classes -> the best P: class, cell
                           |                                           |
                           +------ features at the cells + embedding of the class -> queries
                           |                                           |
                           +------------- keys -------------> decoder layer -> branches: one box a query

A box scores by its query's class alone: what the heatmap said there times what the query says. Bai et al.,
"TransFusion: Robust LiDAR-Camera Fusion for 3D Object Detection with Transformers" (arXiv 2203.11496),
sections 3.2 to 3.5. Where we differ: cells on the border of the map can be peaks too, and the heatmap's last
bias starts at what says 10 %.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.center_code import BevGrid
from sparse3d.models.center_head import HEATMAP_BIAS
from sparse3d.models.query_decoder import QueryDecoder
from sparse3d.models.query_matching import MatchingConfig
from sparse3d.models.roi_head import RowNorm
from sparse3d.models.transfusion_boxes import (
    QueryOutput,
    TransFusionDecodeConfig,
    TransFusionLossConfig,
    decode_queries,
    query_losses,
)


@dataclass(frozen=True)
class TransFusionHeadConfig:
    """The defaults are those of DSVT for nuScenes, without its branch of the IoU."""

    kind: Literal["transfusion"] = "transfusion"
    queries: int = 200
    channels: int = 128
    heads: int = 8
    feedforward: int = 256
    dropout: float = 0.0
    branch_channels: int = 64
    crowded: tuple[str, ...] = ()  # classes that stand close: each of their cells may be a query
    velocity_branch: bool = False  # predict how each object moves; the data must know it
    iou_branch: bool = False  # predict the IoU of each box with the truth, to correct its score
    gaussian_overlap: float = 0.1  # IoU that the heatmap's Gaussians are sized for
    min_radius: int = 2  # of a Gaussian, BEV cells
    matching: MatchingConfig = MatchingConfig()
    loss: TransFusionLossConfig = TransFusionLossConfig()
    decode: TransFusionDecodeConfig = TransFusionDecodeConfig()


class Peaks(NamedTuple):
    """Class and cell (x * Y + y) of each query, and what the heatmap says there: 0 where it is no peak."""

    labels: Int[Tensor, "B P"]
    cells: Int[Tensor, "B P"]
    scores: Float[Tensor, "B P"]


@torch.no_grad()
def best_peaks(logits: Float[Tensor, "B K X Y"], crowded: Tensor, count: int) -> Peaks:
    """The best (class, cell) pairs of each frame among cells that no neighbour's score passes; best first,
    of equal ones the lowest (class, x, y).

    `crowded` (K,) bool: classes of which every cell counts. Fewer peaks than `count` are filled up with cells
    that are none.
    """
    heatmap = logits.float().sigmoid()
    highest = F.max_pool2d(heatmap, 3, stride=1, padding=1)
    peak = (heatmap == highest) | crowded[:, None, None]
    scores = torch.where(peak, heatmap, 0.0).flatten(1)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
    cells = logits.shape[2] * logits.shape[3]
    return Peaks(order // cells, order % cells, scores.gather(1, order))


class _Branch(nn.Sequential):
    """Two linear maps with a norm between them, query by query."""

    def __init__(self, channels: int, hidden: int, outputs: int, bias: float = 0.0):
        last = nn.Linear(hidden, outputs)
        nn.init.constant_(last.bias, bias)
        super().__init__(nn.Linear(channels, hidden, bias=False), RowNorm(hidden), nn.ReLU(), last)


class TransFusionHead(nn.Module):
    """(B, in_channels, X, Y) -> QueryOutput; `classes` are the names of the labels, `grid` says where the
    cells lie."""

    def __init__(
        self, in_channels: int, classes: tuple[str, ...], grid: BevGrid, config: TransFusionHeadConfig
    ):
        super().__init__()
        self.config, self.grid = config, grid
        channels, hidden = config.channels, config.branch_channels
        self.shared = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.heatmap = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, len(classes), 3, padding=1),
        )
        nn.init.constant_(self.heatmap[3].bias, HEATMAP_BIAS)  # pyright: ignore[reportArgumentType]
        self.embedding = nn.Linear(len(classes), channels)  # of the class, given as 0s and a 1
        self.decoder = QueryDecoder(channels, config.heads, config.feedforward, config.dropout)

        self.scores = _Branch(channels, hidden, len(classes), HEATMAP_BIAS)
        self.center = _Branch(channels, hidden, 2)
        self.z = _Branch(channels, hidden, 1)
        self.dim = _Branch(channels, hidden, 3)
        self.rot = _Branch(channels, hidden, 2)
        self.velocity = _Branch(channels, hidden, 2) if config.velocity_branch else None
        self.iou = _Branch(channels, hidden, 1) if config.iou_branch else None

        crowded = torch.tensor([name in config.crowded for name in classes])
        middles = [torch.arange(size) + 0.5 for size in grid.shape]
        self.register_buffer("crowded", crowded, persistent=False)
        self.register_buffer("places", torch.cartesian_prod(*middles), persistent=False)

    def forward(self, bev: Float[Tensor, "B C X Y"]) -> QueryOutput:
        shared = self.shared(bev)
        heatmap = self.heatmap(shared)
        crowded, places = self.crowded, self.places
        assert isinstance(crowded, Tensor) and isinstance(places, Tensor)
        peaks = best_peaks(heatmap.detach(), crowded, self.config.queries)

        keys = shared.flatten(2).transpose(1, 2)
        at = peaks.cells[..., None].expand(-1, -1, keys.shape[2])
        kind = F.one_hot(peaks.labels, heatmap.shape[1]).to(keys.dtype)
        queries = keys.gather(1, at) + self.embedding(kind)
        middle = places[peaks.cells]
        queries = self.decoder(queries, middle, keys, places)

        def say(branch: nn.Module) -> Tensor:
            said = branch(queries.flatten(0, 1)).float()
            return said.reshape(*queries.shape[:2], said.shape[1])

        code = [middle + say(self.center), say(self.z), say(self.dim), say(self.rot)]
        return QueryOutput(
            heatmap=heatmap,
            labels=peaks.labels,
            peak_scores=peaks.scores,
            scores=say(self.scores),
            code=torch.cat(code, dim=2),
            velocity=say(self.velocity) if self.velocity is not None else None,
            iou=say(self.iou)[..., 0] if self.iou is not None else None,
        )

    def loss(self, output: QueryOutput, batch: DetectionBatch) -> dict[str, Tensor]:
        """Weighted scalar losses. Boxes centred out of bounds are ignored."""
        config = self.config
        return query_losses(
            output,
            batch,
            self.grid,
            config.matching,
            config.loss,
            overlap=config.gaussian_overlap,
            min_radius=config.min_radius,
        )

    def decode(self, output: QueryOutput) -> list[Detections]:
        """Detections of each frame, highest score first."""
        return decode_queries(output, self.grid, self.config.decode)
