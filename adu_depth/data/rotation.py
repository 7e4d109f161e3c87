"""Images turned about their axis or magnified, and their maps with them: a camera that rolls, or has a longer lens,
sees the same depths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from adu_depth.geometry import Camera


def moving_grid(
    turns: Tensor | None, windows: Tensor | None, camera: Camera, size: Sequence[int], level: Sequence[int]
) -> Tensor:
    """Where each place of a turned, then magnified map is taken from, B×h×w×(x, y), as `grid_sample` counts: −1 … 1
    from edge to edge. One of turns and windows may be None.

    turns: see `augmentation.draw_turns`; a positive angle turns what is right of the middle down. The turn is about the
    image's middle: about another point than the principal one it is the same turn and a shift, which leaves depths and
    focal lengths as they are. windows: see `augmentation.draw_windows`. size: the image's (height, width); level: the
    map's. Pixels that are no squares (an image resized to another shape: fx is not fy) are turned as the rays are.
    """
    drawn = turns if windows is None else windows
    assert drawn is not None, "neither turns nor windows"
    height, width = level
    device = drawn.device
    x = ((2 * torch.arange(width, device=device) + 1) / width - 1).expand(drawn.shape[1], height, width)
    y = ((2 * torch.arange(height, device=device) + 1) / height - 1).unsqueeze(1).expand_as(x)
    if windows is not None:
        factor, across, down = (values.reshape(-1, 1, 1) for values in windows)
        x, y = ((2 * place - 1) * (1 - 1 / factor) + edge / factor for place, edge in ((across, x), (down, y)))
    if turns is None:
        return torch.stack([x, y], -1)
    stretch = torch.as_tensor(camera.fx, device=device) / torch.as_tensor(camera.fy, device=device)
    stretch = torch.where(torch.isfinite(stretch), stretch, 1.0).float() * (size[0] / size[1])  # of y seen as x
    cosine, sine, stretch = (values.reshape(-1, 1, 1) for values in (turns[0], turns[1], stretch))
    return torch.stack([cosine * x + sine * stretch * y, cosine * y - sine / stretch * x], -1)


def turned(maps: Tensor, grid: Tensor, *, measured: bool) -> Tensor:
    """B×C×h×w maps by the grid of their size, in their type and memory layout.

    measured: the nearest value, and 0 (unknown) where the map shows nothing. Else bilinear, mirrored at the edges.
    """
    mode, edge = ("nearest", "zeros") if measured else ("bilinear", "reflection")
    found = F.grid_sample(maps.float(), grid, mode=mode, padding_mode=edge, align_corners=False).to(maps.dtype)
    return found if maps.is_contiguous() else found.contiguous(memory_format=torch.channels_last)
