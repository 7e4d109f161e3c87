"""The windows at the sizes of KITTI's images, as the published code gets them, and what a user's words choose."""

from __future__ import annotations

import pytest
import torch

from adu_depth.errors import InputError
from adu_depth.evaluation.protocols import BY_LAYOUT, PROTOCOLS, choose_protocols, window_mask


def borders(protocol: str, height: int, width: int) -> tuple[int, int, int, int]:
    """First row, row after the last, first column, column after the last; the window must be a full rectangle."""
    mask = window_mask(protocol, height, width)
    assert mask.shape == (height, width)
    rows, columns = torch.nonzero(mask, as_tuple=True)
    found = (int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1)
    assert int(mask.sum()) == (found[1] - found[0]) * (found[3] - found[2])
    return found


@pytest.mark.parametrize(
    ("protocol", "size", "expected"),
    [
        ("garg", (375, 1242), (153, 371, 44, 1197)),
        ("garg-352x1216", (375, 1242), (166, 372, 56, 1185)),
        ("eigen", (375, 1242), (124, 342, 44, 1197)),
        ("none", (375, 1242), (0, 375, 0, 1242)),
        ("kitti-depth", (375, 1242), (0, 375, 0, 1242)),
        ("nyu-eigen", (480, 640), (45, 471, 41, 601)),  # Eigen et al., 1406.2283, as BTS and others cut it
        ("hu", (228, 304), (0, 228, 0, 304)),
        ("garg-352x1216", (352, 1216), (143, 349, 43, 1172)),
        ("garg", (352, 1216), (143, 349, 43, 1172)),  # cropped before, the two are one
        ("garg-352x1216", (370, 1226), (18 + 143, 18 + 349, 5 + 43, 5 + 1172)),
        ("garg-352x1216", (376, 1241), (24 + 143, 24 + 349, 12 + 43, 12 + 1172)),  # int((1241 − 1216) / 2) = 12
    ],
)
def test_borders(protocol: str, size: tuple[int, int], expected: tuple[int, int, int, int]) -> None:
    assert borders(protocol, *size) == expected


def test_an_image_below_the_crop_is_refused() -> None:
    for size in ((351, 1216), (352, 1215)):
        with pytest.raises(InputError, match=rf"'garg-352x1216' needs images of 352×1216 or larger, got {size[0]}×"):
            window_mask("garg-352x1216", *size)


def test_auto_is_the_layouts_own_and_all_what_fits() -> None:
    assert choose_protocols("auto", "kitti_eigen", (375, 1242))[0] == "garg-352x1216"
    assert set(choose_protocols("auto", "kitti_eigen", (375, 1242))) == {"garg-352x1216", "garg", "eigen", "none"}
    assert choose_protocols("auto", "kitti_depth", (352, 1216))[0] == "kitti-depth"
    assert choose_protocols("auto", "middlebury", (497, 741)) == ("none",)
    assert choose_protocols("all", "middlebury", (497, 741)) == ("none", "garg", "eigen", "kitti-depth")
    assert set(choose_protocols("all", "rig", (375, 1242))) == {n for n, p in PROTOCOLS.items() if not p.by_name}
    assert choose_protocols("eigen, garg,eigen", "rig", (9, 9)) == ("eigen", "garg")
    for wrong in ("gard", "garg,,eigen", ""):
        with pytest.raises(InputError, match="protocol: expected one of none, garg, eigen, garg-352x1216, kitti-depth"):
            choose_protocols(wrong, "rig", (375, 1242))
    assert {name for names in BY_LAYOUT.values() for name in names} <= set(PROTOCOLS)


def test_cropped_images_have_no_whole_ground_truth() -> None:
    for words in ("auto", "all"):
        assert choose_protocols(words, "kitti_eigen", (352, 1216), cropped=True) == ("garg-352x1216",)
    with pytest.raises(InputError, match="protocol 'garg' is of the whole ground truth, which kb_crop has cut"):
        choose_protocols("garg", "kitti_eigen", (352, 1216), cropped=True)


def test_middles_have_no_window_of_the_whole_image() -> None:
    """A window's fractions of the middle are another part of the image."""
    assert choose_protocols("auto", "kitti_eigen", (228, 304), middles=True) == ("none",)
    assert choose_protocols("auto", "kitti_eigen", (228, 304), cropped=True, middles=True) == ("none",)
    assert choose_protocols("hu", "nyu_v2", (228, 304), middles=True) == ("hu",)
    for name in ("nyu-eigen", "garg", "eigen", "garg-352x1216"):
        with pytest.raises(
            InputError, match=r"of the whole ground truth, which data\.fit centre has cut to its middle"
        ):
            choose_protocols(name, "nyu_v2", (228, 304), middles=True)
