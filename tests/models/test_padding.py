"""Any image size."""

from __future__ import annotations

import pytest
import torch

from adu_depth.errors import InputError
from adu_depth.images import check_image
from adu_depth.models.padding import crop_map, pad_to_cells


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (97, 131), (375, 1242)])
def test_padding_repeats_the_border_on_the_right_and_below(size: tuple[int, int]) -> None:
    height, width = size
    image = torch.rand(2, 3, height, width)
    padded = pad_to_cells(image)
    assert padded.shape[-2] % 32 == 0
    assert padded.shape[-1] % 32 == 0
    assert padded.shape[-2] - height < 32
    assert padded.shape[-1] - width < 32
    assert torch.equal(crop_map(padded, height, width), image)
    assert torch.equal(padded[..., -1, -1], image[..., -1, -1])


def test_whole_cells_are_left_alone() -> None:
    image = torch.rand(1, 3, 64, 96)
    assert pad_to_cells(image) is image


def test_a_cropped_map_covers_the_image() -> None:
    assert crop_map(torch.zeros(1, 2, 16, 20), 97, 131, 8).shape == (1, 2, 13, 17)


@pytest.mark.parametrize("image", [torch.zeros(3, 8, 8), torch.zeros(1, 1, 8, 8), torch.zeros(1, 3, 8, 8).byte()])
def test_what_is_no_image_is_named(image: torch.Tensor) -> None:
    with pytest.raises(InputError, match="left"):
        check_image("left", image)
