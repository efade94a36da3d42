"""Normalisation over voxels. Empty tensors and single voxels are legal in training and give gradients."""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.tensor import SparseTensor
from sparse3d_ops.segment import gather_rows, segment_mean


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over all voxels of a batch.

    With fewer than two voxels there is no variance to estimate: training then uses the running statistics and
    leaves them as they are.
    """

    def forward(self, x: SparseTensor) -> SparseTensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.replace(self.normalize(x.features))

    def normalize(self, features: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
        if torch.compiler.is_compiling():
            return self._normalize_any_size(features)
        if self.training and features.shape[0] < 2:
            arguments = (self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
            return nn.functional.batch_norm(features, *arguments)
        return super().forward(features)

    def _normalize_any_size(self, features: Tensor) -> Tensor:
        """The same without a branch on the number of voxels, which a compiled graph does not know."""
        running_mean, running_var, seen = self.running_mean, self.running_var, self.num_batches_tracked
        if running_mean is None or running_var is None or seen is None:
            raise ValueError("a compiled BatchNorm needs track_running_stats=True")
        mean, variance = running_mean, running_var
        if self.training:
            # In float32 at least: half precision can neither count voxels nor sum them.
            wide = features.to(torch.promote_types(features.dtype, torch.float32))
            count = torch.ones_like(wide[:, :1]).sum()
            estimable = count >= 2
            batch_mean = wide.sum(0) / count.clamp(min=1)
            batch_variance = (wide - batch_mean).square().sum(0) / count.clamp(min=1)
            mean = torch.where(estimable, batch_mean, running_mean)
            variance = torch.where(estimable, batch_variance, running_var)
            with torch.no_grad():
                rate = self.momentum
                if rate is None:  # the average over all batches, this one included
                    rate = 1 / (seen + 1)
                rate = estimable * rate
                running_mean.lerp_(mean.detach().to(running_mean.dtype), rate.to(running_mean.dtype))
                unbiased = torch.where(estimable, variance * count / (count - 1).clamp(min=1), running_var)
                running_var.lerp_(unbiased.detach().to(running_var.dtype), rate.to(running_var.dtype))
                seen.add_(estimable)
        out = (features - mean) * torch.rsqrt(variance + self.eps)
        if self.affine:
            out = out * self.weight + self.bias
        return out.to(features.dtype)


class _AllReduceSum(torch.autograd.Function):
    """Sum over ranks; the gradient is the sum of the ranks' gradients."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose statistics are those of all ranks, for sparse tensors and for (N, C, ...) tensors.

    Unlike torch's, it runs on a CPU (gloo) too, and a rank without voxels takes part with a count of zero.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least (N, C), got {tuple(input.shape)}")

    def forward(self, x):  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(x, SparseTensor):
            return x.replace(self.normalize(x.features))
        return self.normalize(x)

    def normalize(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        if not self.training or not (dist.is_available() and dist.is_initialized()):
            if self.running_mean is None or self.training and x.numel() // max(x.shape[1], 1) >= 2:
                return super().forward(x)
            arguments = (self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
            return nn.functional.batch_norm(x, *arguments)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = wide.new_full((1,), wide.numel() // max(wide.shape[1], 1))
        # Two passes (mean, then squared deviations) keep the variance exact for features far from zero.
        first = _AllReduceSum.apply(torch.cat([count, wide.sum(axes)]))
        total = first[:1].detach().clamp(min=1)
        if self.running_mean is not None and float(total) < 2:  # no variance to estimate, on any rank
            arguments = (self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
            return nn.functional.batch_norm(x, *arguments)
        mean = first[1:] / total
        shape = [1, -1] + [1] * (x.dim() - 2)
        centred = wide - mean.reshape(shape)
        variance = _AllReduceSum.apply(centred.square().sum(axes)) / total
        self._update(mean.detach(), variance.detach(), total)
        out = centred * torch.rsqrt(variance + self.eps).reshape(shape)
        if self.affine:
            out = out * self.weight.reshape(shape) + self.bias.reshape(shape)
        return out.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        running_mean, running_var, seen = self.running_mean, self.running_var, self.num_batches_tracked
        if running_mean is None or running_var is None or seen is None or float(count) < 2:
            return
        seen += 1
        momentum = 1 / float(seen) if self.momentum is None else self.momentum
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        unbiased = variance * count / (count - 1)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)


def convert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every batch norm, sparse and dense, by `SyncBatchNorm` with the same parameters and
    statistics."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, SyncBatchNorm):
        sync = SyncBatchNorm(
            module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
        )
        if module.affine:
            sync.weight, sync.bias = module.weight, module.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(sync, name, getattr(module, name))
        return sync.train(module.training)
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batchnorm(child))
    return module


class LayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each voxel."""

    def __init__(self, channels: int, eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True):
        super().__init__(channels, eps, elementwise_affine, bias)

    def forward(self, x: SparseTensor) -> SparseTensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.replace(super().forward(x.features))


class GroupNorm(nn.Module):
    """Group norm: statistics over all voxels of a sample and the channels of a group, as torch's over
    dense space."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        if groups < 1 or channels % groups:
            raise ValueError(f"groups={groups} must divide channels={channels}")
        self.groups, self.channels, self.eps = groups, channels, eps
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: SparseTensor) -> SparseTensor:
        if x.channels != self.channels:
            raise ValueError(f"expects {self.channels} channels, got {x.channels}")
        wide = x.features.float() if x.dtype in (torch.float16, torch.bfloat16) else x.features
        sample = x.batch_index
        centred = wide - self._mean(wide, sample, x.batch_size)
        variance = self._mean(centred.square(), sample, x.batch_size)
        out = centred * torch.rsqrt(variance + self.eps)
        if self.weight is not None and self.bias is not None:
            out = out * self.weight + self.bias
        return x.replace(out.to(x.dtype))

    def _mean(self, values: Tensor, sample: Tensor, batch_size: int) -> Tensor:
        """Mean per sample and group, spread back to (N, C)."""
        per_channel = segment_mean(values, sample, batch_size)
        per_group = per_channel.reshape(batch_size, self.groups, -1).mean(2, keepdim=True)
        spread = per_group.expand(-1, -1, self.channels // self.groups).reshape(batch_size, self.channels)
        return gather_rows(spread, sample)

    def extra_repr(self) -> str:
        return f"{self.groups}, {self.channels}, eps={self.eps}, affine={self.weight is not None}"


class InstanceNorm(GroupNorm):
    """Instance norm: each channel of each sample by itself."""

    def __init__(self, channels: int, eps: float = 1e-5, affine: bool = False):
        super().__init__(channels, channels, eps, affine)
