"""Adapters bring the student's features to the teacher's, in training only (METHOD §3, our reconstruction)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import Parameter

from adu_depth.errors import InputError
from adu_depth.models.blocks import Backend, KernelModule, channels_last, set_backend
from adu_kernels import attention_adaptation

MAX_KEYS = 1024


class FeatureAdapter(KernelModule):
    """Y = X + γ·W_o·softmax(QKᵀ/√d + bias)·V with X = W_in·F, for one level; keys and values read an average-pooled X.

    W_in starts as the identity where student and teacher have equally many channels, so that the adapter starts as the
    identity; else it starts orthogonal, which keeps the length of a feature vector where channels are added and the
    scale of what is left where they are dropped. γ starts at 0 and W_o does not (both at 0 would stay there). With γ at
    0 the first step moves W_in and γ; from the second on every parameter has a gradient.

    Maps keep the channels-last layout from W_in to Y: the attention reads and writes them in place, and the last
    projection, γ and the sum with X are one matrix product.

    student_channels, teacher_channels: channels in and out. heads, head_channels: the attention's shape.
    uncertainty_bias: let uncertain regions lend less to the others (forward then needs `log_scale`). attention: without
    it Y is X alone, which shows what the rest brings.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        heads: int = 2,
        head_channels: int = 32,
        uncertainty_bias: bool = False,
        attention: bool = True,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        counts = {
            "student_channels": student_channels,
            "teacher_channels": teacher_channels,
            "heads": heads,
            "head_channels": head_channels,
        }
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"{name}: expected at least 1, got {count}")
        self.heads, self.head_channels = heads, head_channels
        self.uncertainty_bias = uncertainty_bias
        inner = heads * head_channels
        self.attention = attention
        self.project_in = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
        if attention:
            self.query = nn.Conv2d(teacher_channels, inner, 1, bias=False)
            self.key = nn.Conv2d(teacher_channels, inner, 1, bias=False)
            self.value = nn.Conv2d(teacher_channels, inner, 1, bias=False)
            self.project_out = nn.Conv2d(inner, teacher_channels, 1, bias=False)
            self.gamma = Parameter(torch.zeros(()))
        if student_channels == teacher_channels:
            nn.init.dirac_(self.project_in.weight)
        else:
            nn.init.orthogonal_(self.project_in.weight)
        channels_last(self)
        set_backend(self, backend)

    def forward(self, student_feature: Tensor, log_scale: Tensor | None = None) -> Tensor:
        """B×C_s×H×W → B×C_t×H×W, any size. log_scale: B×1×H'×W' of any size, read where `uncertainty_bias` is set.

        The log scale only steers the attention: it receives no gradient from here.
        """
        x: Tensor = self.project_in(student_feature)
        if not self.attention:
            return x
        pooled = pool_keys(x)
        attended = attention_adaptation(
            self._tokens(self.query(x)),
            self._tokens(self.key(pooled)),
            self._tokens(self.value(pooled)),
            key_bias=self._key_bias(log_scale, pooled),
            backend=self.backend,
        )
        return self._added(x, attended)

    def _added(self, x: Tensor, attended: Tensor) -> Tensor:
        """x + γ·W_o·attended. γ scales the weights, so no map is read or written but x, attended and the result."""
        batch, channels, height, width = x.shape
        weight = self.gamma * self.project_out.weight.flatten(1)
        values = attended.transpose(1, 2).reshape(batch * height * width, -1)
        flat = x.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
        return torch.addmm(flat, values, weight.T).view(batch, height, width, channels).permute(0, 3, 1, 2)

    def _tokens(self, maps: Tensor) -> Tensor:
        """B×(heads·d)×H×W → B×heads×N×d, a view of channels-last maps and of contiguous ones."""
        return maps.reshape(maps.shape[0], self.heads, self.head_channels, -1).transpose(2, 3)

    def _key_bias(self, log_scale: Tensor | None, pooled: Tensor) -> Tensor | None:
        if not self.uncertainty_bias:
            return None
        if log_scale is None:
            raise InputError("log_scale: the adapter was built with uncertainty_bias and needs the student's log scale")
        return -F.adaptive_avg_pool2d(log_scale.detach().float(), (pooled.shape[-2], pooled.shape[-1])).flatten(1)


def pool_keys(x: Tensor, most: int = MAX_KEYS) -> Tensor:
    """B×C×H×W averaged over k×k cells, k the smallest whole number that leaves at most so many cells."""
    height, width = x.shape[-2:]
    k = 1
    while -(-height // k) * -(-width // k) > most:
        k += 1
    return x if k == 1 else F.avg_pool2d(x, k, ceil_mode=True, count_include_pad=False)


class FeatureAdapters(nn.Module):
    """One `FeatureAdapter` per level, finest first; keywords go to each of them. Never part of the student's module."""

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        *,
        heads: int = 2,
        head_channels: int = 32,
        uncertainty_bias: bool = False,
        attention: bool = True,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        if len(student_channels) != len(teacher_channels):
            raise InputError(
                "student_channels and teacher_channels: expected equally many levels, got "
                f"{len(student_channels)} and {len(teacher_channels)}"
            )
        self.levels = nn.ModuleList(
            FeatureAdapter(
                s,
                t,
                heads=heads,
                head_channels=head_channels,
                uncertainty_bias=uncertainty_bias,
                attention=attention,
                backend=backend,
            )
            for s, t in zip(student_channels, teacher_channels, strict=True)
        )

    def forward(self, student_features: Sequence[Tensor], log_scale: Tensor | None = None) -> tuple[Tensor, ...]:
        if len(student_features) != len(self.levels):
            raise InputError(f"student_features: expected {len(self.levels)} levels, got {len(student_features)}")
        return tuple(level(f, log_scale) for level, f in zip(self.levels, student_features, strict=True))
