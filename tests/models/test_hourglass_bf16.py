"""An hourglass on a CPU in bf16: the gradients of its weights are those of fp32, whatever freed memory holds."""

import pytest
import torch

from adu_depth.models.aggregation import Hourglass


def _gradients(hourglass: Hourglass, volume: torch.Tensor, bf16: bool) -> dict[str, torch.Tensor]:
    hourglass.zero_grad()
    waste = [torch.full((2**power,), 1e30) for power in range(6, 17) for _ in range(4)]
    del waste
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        made = hourglass(volume)
    made.float().square().mean().backward()
    return {name: p.grad.clone() for name, p in hourglass.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("disparities", [4, 8], ids=["of 16", "of 32"])
def test_the_gradients_of_few_disparities(disparities: int) -> None:
    torch.manual_seed(0)
    hourglass = Hourglass(8, "group")
    volume = torch.randn(2, 8, disparities, 8, 16)
    plain, mixed = (_gradients(hourglass, volume, bf16) for bf16 in (False, True))
    for name, expected in plain.items():
        assert (mixed[name] - expected).norm() < 0.3 * expected.norm(), name
