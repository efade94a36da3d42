"""A decoder layer: queries attend to each other, then to all cells of a map, then pass a small network.

Every attention sees places beside features, in queries, keys and values alike. Sources: Vaswani et al.,
"Attention Is All You Need" (arXiv 1706.03762), section 3; TransFusion (arXiv 2203.11496), section 3.3.
"""

from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.models.roi_head import RowNorm


class Places(nn.Sequential):
    """Embedding of places (N, 2), BEV cells: (N, channels)."""

    def __init__(self, channels: int):
        super().__init__(nn.Linear(2, channels), RowNorm(channels), nn.ReLU(), nn.Linear(channels, channels))


class QueryDecoder(nn.Module):
    """Queries (B, P, C) at places (B, P, 2), keys (B, N, C) at places (N, 2) of every frame -> (B, P, C)."""

    def __init__(self, channels: int, heads: int, feedforward: int, dropout: float):
        super().__init__()
        self.query_places, self.key_places = Places(channels), Places(channels)
        self.self_attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(channels, heads, dropout, batch_first=True)
        self.widen = nn.Linear(channels, feedforward)
        self.narrow = nn.Linear(feedforward, channels)
        self.self_norm, self.cross_norm, self.norm = (nn.LayerNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        queries: Float[Tensor, "B P C"],
        places: Float[Tensor, "B P 2"],
        keys: Float[Tensor, "B N C"],
        key_places: Float[Tensor, "N 2"],
    ) -> Float[Tensor, "B P C"]:
        here = self.query_places(places.flatten(0, 1)).reshape(queries.shape)
        located = queries + here
        seen, _ = self.self_attention(located, located, located, need_weights=False)
        queries = self.self_norm(queries + self.dropout(seen))

        cells = keys + self.key_places(key_places)
        seen, _ = self.cross_attention(queries + here, cells, cells, need_weights=False)
        queries = self.cross_norm(queries + self.dropout(seen))

        more = self.narrow(self.dropout(self.widen(queries).relu()))
        return self.norm(queries + self.dropout(more))
