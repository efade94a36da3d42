"""What all segmenters share: from logits of points to losses and labels."""

from torch import Tensor, nn

from sparse3d.frames import SegmentationBatch
from sparse3d.models.segmentation_losses import SegmentationLossConfig, segmentation_losses


class Segmenter(nn.Module):
    """A network that gives every point of a batch its logits; sub-classes define `logits`."""

    def __init__(self, loss: SegmentationLossConfig):
        super().__init__()
        self.loss_config = loss

    def logits(self, batch: SegmentationBatch) -> Tensor:
        """(P, C) of every point of the batch, also of those that share a voxel."""
        raise NotImplementedError

    def loss(self, batch: SegmentationBatch) -> dict[str, Tensor]:
        """Named scalar losses over the points with a label; their sum is minimised."""
        return segmentation_losses(self.logits(batch), batch.labels, self.loss_config)

    def predict(self, batch: SegmentationBatch) -> list[Tensor]:
        """(n,) int64 labels of the points of each frame; call `eval()` before."""
        return batch.split(self.logits(batch).argmax(dim=1))
