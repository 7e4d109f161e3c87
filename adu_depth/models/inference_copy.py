"""A frozen network as inference computes it best: norms folded into convolutions, weights in the type they are read in.

What training needs is gone from the copy; the network itself stays as it is, and its digest is that of its checkpoint.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval

from adu_depth.models.blocks import ConvNorm
from adu_depth.models.encoder import Encoder

Network = TypeVar("Network", bound=nn.Module)


def inference_copy(network: Network, dtype: torch.dtype | None = None) -> Network:
    """A frozen copy in eval mode that gives what `network` gives there, within rounding.

    A BatchNorm behind a convolution has fixed statistics in eval mode and goes into its weights (in fp32, before they
    are rounded). A GroupNorm has none: nothing of it can be folded.

    Args:
        network: any network of ours; it is not changed.
        dtype: the type of the autocast that the copy will run under, None without one. Weights of convolutions and
            linear layers are then kept in it, which autocast would else make of them in every step; the same bits.

    Returns:
        The copy, without gradients.
    """
    frozen = copy.deepcopy(network).eval().requires_grad_(False)
    with torch.no_grad():
        for parent, conv, norm in _foldable(frozen):
            setattr(parent, conv, _folded(getattr(parent, conv), getattr(parent, norm)))
            setattr(parent, norm, nn.Identity())
    if dtype is not None:
        for layer in frozen.modules():
            if isinstance(layer, _ConvNd | nn.Linear):
                layer.to(dtype)
    return frozen


def _folded(conv: _ConvNd, norm: _BatchNorm) -> nn.Module:
    fused: nn.Module = fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, _ConvTransposeNd))
    return fused.requires_grad_(False)


def _foldable(network: nn.Module) -> list[tuple[nn.Module, str, str]]:
    """(module, name of its convolution, name of the BatchNorm beside it that normalises this convolution's result)."""
    found = []
    follows = _what_norms_follow(network)
    for parent in network.modules():
        for (conv_name, conv), (norm_name, norm) in pairwise(parent.named_children()):
            fixed = isinstance(conv, _ConvNd) and isinstance(norm, _BatchNorm) and norm.track_running_stats
            if fixed and (isinstance(parent, ConvNorm) or follows.get(norm) is conv):
                found.append((parent, conv_name, norm_name))
    return found


def _what_norms_follow(network: nn.Module) -> dict[nn.Module, nn.Module]:
    """For the BatchNorms of encoders: the convolution whose result each is given, as is seen when an image passes. Of
    backbones that others wrote, and of published networks with their names, the order of modules does not say it."""
    follows: dict[nn.Module, nn.Module] = {}
    for encoder in network.modules():
        if not isinstance(encoder, Encoder):
            continue
        made: dict[int, tuple[nn.Module, Tensor]] = {}  # with the tensor, so that no other has its number

        def after(
            module: nn.Module, _: object, result: Tensor, made: dict[int, tuple[nn.Module, Tensor]] = made
        ) -> None:
            made[id(result)] = (module, result)

        def before(module: nn.Module, given: tuple[Tensor], made: dict[int, tuple[nn.Module, Tensor]] = made) -> None:
            if id(given[0]) in made:
                follows[module] = made[id(given[0])][0]

        hooks = [m.register_forward_hook(after) for m in encoder.modules() if isinstance(m, _ConvNd)]
        hooks += [m.register_forward_pre_hook(before) for m in encoder.modules() if isinstance(m, _BatchNorm)]
        with torch.no_grad():
            encoder(torch.zeros(1, 3, 96, 160, device=next(encoder.parameters()).device))
        for hook in hooks:
            hook.remove()
    return follows
