"""A cloud of Gaussians with the losses that it is trained by."""

import torch
from torch import Tensor, nn

from sparse3d.data.whole_photos import WholePhoto
from sparse3d.gaussians.model import SplatModel
from sparse3d.gaussians.render import SplatRendering, Splats, SplatView, render
from sparse3d.recipes.splatting.config import SplattingConfig
from sparse3d_ops.structural_similarity import ssim_map


class SplatTraining(nn.Module):
    """A cloud as the training loop takes it. `step` is set before each one; `seen` is what the last one
    drew."""

    def __init__(self, splats: SplatModel, config: SplattingConfig, background: tuple[float, float, float]):
        super().__init__()
        self.splats, self.config = splats, config
        self.register_buffer("background", torch.tensor(background), persistent=False)
        self.step = 0
        self.seen: Splats | None = None

    def loss(self, batch: WholePhoto) -> dict[str, Tensor]:
        """`color` and the other terms of `SplatLossConfig` that have a weight."""
        view = SplatView.of(batch.camera, self.splats.means)
        degree = self.step // self.config.sh_every
        seen = render(self.splats.cloud, view, self.background, self.config.drawing, degree)  # pyright: ignore
        self.seen = seen.splats
        return self._photometric(seen, batch) | self._regular(seen, batch)

    def _photometric(self, seen: SplatRendering, batch: WholePhoto) -> dict[str, Tensor]:
        loss = self.config.loss
        color, wanted = seen.color, batch.rgb
        if batch.mask is not None:  # what is hidden is as it should be
            color = torch.where(batch.mask[..., None], color, wanted)
        error = color - wanted
        total = loss.absolute * error.abs().mean() + loss.squared * error.square().mean()
        if loss.similarity:
            total = total + loss.similarity * (1 - ssim_map(color, wanted).mean())
        return {"color": total}

    def _regular(self, seen: SplatRendering, batch: WholePhoto) -> dict[str, Tensor]:
        loss, terms = self.config.loss, {}
        if loss.alpha and batch.alpha is not None:
            terms["alpha"] = loss.alpha * (seen.alpha - batch.alpha).abs().mean()
        if loss.opacity:
            terms["opacity"] = loss.opacity * torch.sigmoid(self.splats.opacities).mean()
        if loss.scale:
            reach = self.splats.scene_scale.to(self.splats.scales)
            terms["scale"] = loss.scale * torch.exp(self.splats.scales).mean() / reach
        return terms

    def reshape_for(self, tensors: dict[str, Tensor]) -> None:
        """Take on the number of Gaussians of a state dict, so that it can be loaded."""
        own = {k.removeprefix("splats."): v for k, v in tensors.items() if k.startswith("splats.")}
        self.splats.reshape_for(own)
