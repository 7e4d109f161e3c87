"""Operations in a network of your own: features → disparity, from pairs alone, in forty lines.

    python scripts/examples/own_network.py

The network is two convolutions; `correlation_disparity` compares the views and reads the disparity, and writes no
volume. On a GPU the same lines run the fused kernels. It learns features that match better than grey levels do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adu_depth.data import SyntheticStereo
from adu_kernels import correlation_disparity

DISPARITIES = 32


class Matcher(nn.Module):
    """left, right: B×3×H×W in [0, 1] → disparity and its variance, B×H×W."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.Conv2d(32, 32, 5, padding=2))

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        left, right = (self.features(view - 0.5) for view in (left, right))
        return correlation_disparity(left, right, DISPARITIES, reduction="sqrt", softmax_scale=4.0)


def error(network: Matcher, pair: dict[str, Tensor]) -> Tensor:
    """Mean distance to the true disparity, pixels, where it is known and within what is searched."""
    disparity, _ = network(pair["left"], pair["right"])
    known = pair["valid"] & (pair["disparity"] < DISPARITIES)
    return (disparity - pair["disparity"]).abs()[known].mean()


def main() -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pairs = []
    for sample in (SyntheticStereo(length=9, height=48, width=128, seed=0)[i] for i in range(9)):
        views = {name: getattr(sample, name)[None].to(device) for name in ("left", "right")}
        truth = {name: getattr(sample, name).to(device) for name in ("disparity", "valid")}
        pairs.append(views | truth)
    *training, unseen = pairs
    network = Matcher().to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    before = error(network, unseen).item()
    for step in range(24):
        optimizer.zero_grad()
        error(network, training[step % len(training)]).backward()
        optimizer.step()
    after = error(network, unseen).item()
    print(f"mean error on a pair that was not trained on: {before:.2f} pixels before, {after:.2f} after")
    assert after < 0.7 * before, "it should have learned"


if __name__ == "__main__":
    main()
