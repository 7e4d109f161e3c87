"""Exponential moving averages of a network's weights: what inference uses where loop.ema is on.

After step t the averages move a share 1 − d of the way to the weights, d = min(decay, (1 + t) / (10 + t)): a short run,
and the beginning of a long one, is averaged over fewer steps, and the first weights are soon forgotten.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

WARM_UP = (1.0, 10.0)


class Averages:
    """A second network whose weights follow those of `network`, on the same device.

    Averaged is what is trained. Buffers (a batch norm's running statistics are averages already) and frozen parameters
    are taken as they are whenever the second network is asked for.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """network: on its device. Begins with its weights, see `begin`."""
        self.trained, self.decay = network, decay
        copies: dict[int, Tensor] = {id(p): nn.Parameter(p.detach().clone(), False) for p in network.parameters()}
        copies |= {id(buffer): buffer.clone() for buffer in network.buffers()}
        self._network = copy.deepcopy(network, dict(copies)).eval()
        names, own = dict(network.named_parameters()), dict(self._network.named_parameters())
        self.names = trained_names(network)
        self._pairs: tuple[list[Tensor], list[Tensor]]
        self._pairs = [own[name] for name in self.names], [names[name] for name in self.names]
        """Averages, and the weights that they are of."""
        self.updates = torch.zeros((), dtype=torch.int64, device=self._pairs[1][0].device)

    @torch.no_grad()
    def update(self) -> None:
        """After the weights have changed; on the device alone, so that a CUDA graph can hold it."""
        averages, weights = self._pairs
        self.updates += 1
        share = 1.0 - ((self.updates + WARM_UP[0]) / (self.updates + WARM_UP[1])).clamp(max=self.decay)
        moves = list(torch._foreach_sub(weights, averages))
        torch._foreach_mul_(moves, share)
        torch._foreach_add_(averages, moves)

    @torch.no_grad()
    def network(self) -> nn.Module:
        """The averaged network, in eval mode; good until the next update."""
        averaged = {id(average) for average in self._pairs[0]}
        own, trained = _tensors(self._network), _tensors(self.trained)
        for name, tensor in own.items():
            if id(tensor) not in averaged:
                tensor.copy_(trained[name])
        return self._network

    @torch.no_grad()
    def begin(self) -> None:
        """Forgets all steps: the averages are the weights as they are."""
        torch._foreach_copy_(*self._pairs)
        self.updates.zero_()

    @torch.no_grad()
    def restore(self, averages: dict[str, Tensor], updates: Tensor) -> None:
        """averages: by name, those of `names`."""
        for name, into in zip(self.names, self._pairs[0], strict=True):
            into.copy_(averages[name])
        self.updates.copy_(updates)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return dict(network.named_parameters()) | dict(network.named_buffers())


def trained_names(network: nn.Module) -> list[str]:
    """The parameters that are trained."""
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]
