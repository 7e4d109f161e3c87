"""Runs a teacher or a student on images of any size, at the size it was trained at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from adu_depth.checkpoint import LoadedModel, load_model
from adu_depth.data.config import MOST_AREA
from adu_depth.data.sample import StereoSample
from adu_depth.data.transforms import short_side_size
from adu_depth.errors import InputError
from adu_depth.export.note import Note
from adu_depth.export.opened import format_of, open_exported
from adu_depth.geometry import Camera, stack_cameras
from adu_depth.images import check_image, check_range, image_batch
from adu_depth.models import LightConfig, takes_pairs
from adu_depth.models.padding import CELL
from adu_depth.models.prediction import DepthPrediction
from adu_kernels.checks import plain_number

Flip = Literal["none", "mean", "monodepth"]
Size = Literal["trained", "full"] | float | tuple[int, int]
"""What a network is run at: the size it was trained at, each image's own, a factor of that, or (height, width)."""
MOST_FACTOR, MOST_SIDE = 16.0, 16_384
SIZES = 'expected "trained", "full", a factor of each image\'s own size such as 0.5, or HEIGHTxWIDTH such as 192x640'


class Predictor:
    """A network and the size it works at; predicts at the size of the image it is given.

    A network learns how large things look at one size, so the size it was trained at gives its best depths.
    `needs_camera` is true of a stereo network, and of a student whose depth is scaled by the focal length;
    `predicts_uncertainty` is false of a light network without a log scale.

    Args:
        model: forward(left, right, camera) if `stereo`, else forward(image, camera), returning DepthPrediction.
        size: (height, width) images are resized to before the network sees them; None leaves them as they are.
        device: where the network and its inputs are put.
        stereo: None: a forward with a parameter named `right` is a stereo one.
        trained_size: (height, width) of the images or windows the network was trained on, where that is known.
        short_side: without a size, bring each image to this short side before the network sees it; 0 leaves it.
        factor: without either, bring each image to this factor of its own size before the network sees it.
        flip: also predict the mirrored image and merge the two (`merge_flipped`); for a student. A pair cannot be
            mirrored so: what its network then sees as left is the right view, another picture with other depths.

    Returns:
        Called with a batched StereoSample, a DepthPrediction at the sample's size, without features.

    Raises:
        InputError: a wrong size, factor or flip, a device that is not there; views that are no floats in [0, 1], or
            smaller than a cell of the network once they are brought to the factor, or larger than 2²² pixels where that
            enlarges them.

    Example:
        >>> predict = Predictor(MonoStudent(), size=(64, 96))  # of a run: Predictor.from_checkpoint("runs/student")
        >>> pair = collate([SyntheticStereo(1, 96, 160)[0]])
        >>> predict(pair).depth.shape
        torch.Size([1, 1, 96, 160])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        size: tuple[int, int] | None,
        device: torch.device | str = "cpu",
        stereo: bool | None = None,
        trained_size: tuple[int, int] | None = None,
        flip: Flip = "none",
        short_side: int = 0,
        factor: float = 1.0,
    ) -> None:
        if size is not None:
            sides = tuple(map(plain_number, size)) if isinstance(size, tuple | list) else ()
            if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
                raise InputError(f"size must be (height, width), both positive whole numbers, or None, got {size!r}")
            if sides[0] * sides[1] > MOST_AREA:
                raise InputError(f"size: expected at most {MOST_AREA:,} pixels in all, got {sides[0]}×{sides[1]}")
            size = sides  # type: ignore[assignment]
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.size, self.trained_size, self.short_side = size, trained_size, short_side
        self.factor = _require_factor(factor, "factor: expected a number")
        self.stereo = takes_pairs(model) if stereo is None else stereo
        scaled = getattr(getattr(model, "config", None), "reference_focal", None) is not None
        self.needs_camera = self.stereo or scaled
        light = getattr(model, "config", None)
        self.predicts_uncertainty = light.log_scale if isinstance(light, LightConfig | Note) else True
        if flip not in get_args(Flip):
            raise InputError(f"flip: expected one of {', '.join(get_args(Flip))}, got {flip!r}")
        if self.stereo and flip != "none":
            raise InputError(f"flip {flip!r} is for a student; a mirrored pair asks for the right view's depth")
        self.flip = flip
        self.checkpoint: Path | None = None
        """Where the network came from, if from a checkpoint: of a run, which one of its."""

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: torch.device | str = "auto",
        size: str | Size = "trained",
        flip: Flip = "none",
    ) -> Predictor:
        """The predictor of a run folder, a checkpoint or an exported file; size "trained", "full" (each image's own), a
        factor of each image's own, or (height, width). Both may be texts, "0.5" and "192x640".

        A network trained on windows cut from the images saw them at their own size: for it "trained" is "full".
        One that saw their middles at one short side is given whole images of that short side.
        device "auto" is CUDA where there is one; an exported file runs on the CPU. Raises InputError if there is no
        usable checkpoint at `path`, or for a size that is none.
        """
        size = parse_size(size)  # before anything is loaded
        loaded = _load(path, device)
        return cls.of(loaded, "cpu" if format_of(path) else _device(device), size, flip)

    @classmethod
    def of(
        cls,
        loaded: LoadedModel,
        device: torch.device | str = "cpu",
        size: str | Size = "trained",
        flip: Flip = "none",
    ) -> Predictor:
        """That of a checkpoint which is loaded already, see `from_checkpoint`. device: where it is to work."""
        size = parse_size(size)
        working_size: tuple[int, int] | None = None
        if size == "trained" and loaded.fit == "resize":
            working_size = loaded.size
        elif isinstance(size, tuple):
            working_size = size
        predictor = cls(
            loaded.model,
            size=working_size,
            factor=size if isinstance(size, float) else 1.0,
            device=device,
            stereo=loaded.kind == "teacher",
            trained_size=loaded.size,
            flip=flip,
            short_side=loaded.short_side if size == "trained" else 0,
        )
        predictor.checkpoint = loaded.path
        return predictor

    def __call__(self, sample: StereoSample) -> DepthPrediction:
        """Predicts for a batched sample (left B×3×H×W floats in [0, 1], camera of tensors B); maps are B×1×H×W.

        Features are left out (an empty tuple): they belong to the working size. InputError for views that are no such
        floats; their values are looked at where they lie on the CPU (a GPU would be waited for).
        """
        right = getattr(sample, "right", None)
        for name, view in (("left", sample.left), ("right", right)):
            if view is not None:
                check_image(name, view)
                if view.device.type == "cpu":
                    check_range(name, view)
        return self._predict(sample.left, right, getattr(sample, "camera", None))

    def predict_image(
        self,
        left: np.ndarray | Tensor,
        right: np.ndarray | Tensor | None = None,
        camera: Camera | None = None,
        name: str | Path = "image",
    ) -> DepthPrediction:
        """Predicts for one image or pair, as arrays or tensors (see `images.image_batch`). Maps are 1×1×H×W.

        H×W×3 RGB arrays of uint8 or uint16; 3×H×W or 1×3×H×W tensors of uint8, uint16 or floats in [0, 1]. Raises
        InputError that names the view for anything else, NaN and floats beyond [0, 1] included, and, with `name`, for a
        prediction that is not finite.
        """
        views = [None if view is None else image_batch(side, view) for view, side in ((left, "left"), (right, "right"))]
        assert views[0] is not None
        prediction = self._predict(views[0], views[1], stack_cameras([camera]) if camera is not None else None)
        prediction.require_finite(name)
        return prediction

    def working_size(self, own: tuple[int, int]) -> tuple[int, int]:
        """Height and width that the network sees an image of these at. InputError where a factor makes it smaller than
        a cell of the network, and where that or the short side enlarges it to more pixels than a network is trained
        at."""
        if self.size is not None:
            return self.size
        if self.short_side:
            size = short_side_size(own, self.short_side)
            told = f"size: at the short side that the network was trained at, {self.short_side},"
            require_reasonable(own, size, told, 'size "full", or HEIGHTxWIDTH')
            return size
        if self.factor == 1:
            return own
        height, width = (round(side * self.factor) for side in own)
        if min(height, width) < CELL:
            raise InputError(
                f"size {self.factor:g}: an image of {own[0]}×{own[1]} would be {height}×{width}, expected at least "
                f"{CELL}×{CELL} pixels, a cell of the network"
            )
        require_reasonable(own, (height, width), f"size {self.factor:g}:", "a smaller factor")
        return height, width

    @property
    def about_size(self) -> str:
        """At which size the network sees images, in words; of one that is given middles, at which those are made."""
        if self.size is not None:
            return f"{self.size[0]}×{self.size[1]}"
        return ("" if self.factor == 1 else f"{self.factor:g} of ") + "each image's own size"

    def prepared(
        self, left: Tensor, right: Tensor | None, camera: Camera | None, size: tuple[int, int] | None = None
    ) -> tuple[tuple[Tensor, ...], Camera | None]:
        """What the network is given of these B×3×H×W views: one or both at the size it works at, or another one, and
        the camera there (batched)."""
        check_image("left", left)
        own_size = (left.shape[-2], left.shape[-1])
        size = size or self.working_size(own_size)
        if self.stereo:
            right = self._check_stereo(left, right, camera)  # before anything moves: a camera's numbers are asked for
        if camera is not None:
            camera = camera.to(self.device).resized(size[1] / own_size[1], size[0] / own_size[0])
        inputs: tuple[Any, ...] = (resize_image(left.to(self.device), size),)
        if self.stereo:
            assert right is not None
            inputs += (resize_image(right.to(self.device), size),)
        return inputs, camera

    def _predict(self, left: Tensor, right: Tensor | None, camera: Camera | None) -> DepthPrediction:
        inputs, camera = self.prepared(left, right, camera)
        own_size, size = (left.shape[-2], left.shape[-1]), inputs[0].shape[-2:]
        with evaluating(self.model), torch.no_grad():
            prediction = self.model(*inputs, camera)
            if self.flip != "none":
                mirrored = self.model(inputs[0].flip(-1), None if camera is None else camera.mirrored(size[1]))
                prediction = merge_flipped(prediction, mirrored, self.flip)
        return resize_prediction(prediction, own_size)

    def _check_stereo(self, left: Tensor, right: Tensor | None, camera: Camera | None) -> Tensor:
        if right is None:
            raise InputError("a stereo teacher needs the right image too, got the left one only")
        if camera is None:
            raise InputError("a stereo teacher needs the camera (fx, fy, cx, cy, baseline), got none")
        if right.shape != left.shape:
            sizes = [f"{t.shape[-2]}×{t.shape[-1]}" for t in (left, right)]
            raise InputError(f"left and right image must have one size, got {sizes[0]} and {sizes[1]}")
        for name in ("fx", "baseline"):
            value = torch.as_tensor(getattr(camera, name))
            if not bool((value > 0).all()):
                raise InputError(f"a stereo teacher needs camera.{name} > 0, got {value.flatten().tolist()}")
        check_image("right", right)
        return right


def require_reasonable(own: tuple[int, int], size: tuple[int, int], told: str, advice: str) -> None:
    """InputError where an image of `own` (height, width) is enlarged to `size`, more pixels than a network is trained
    at. told: which setting does it, the message's beginning; advice: what else may be taken."""
    if size[0] * size[1] > max(MOST_AREA, own[0] * own[1]):
        raise InputError(
            f"{told} an image of {own[0]}×{own[1]} would be {size[0]}×{size[1]}, expected at most {MOST_AREA:,} "
            f"pixels: {advice}"
        )


def parse_size(size: str | Size) -> Size:
    """A size that a network is to be run at, as the command line or Python has it. InputError for one that is none."""
    if isinstance(size, tuple | list):
        return tuple(size)  # type: ignore[return-value]  # `Predictor` looks at it
    if isinstance(size, str):
        if size in ("trained", "full"):
            return size  # type: ignore[return-value]
        if sides := re.fullmatch(r"(-?\d+)\s*[x×]\s*(-?\d+)", size.strip()):
            height, width = map(int, sides.groups())
            if min(height, width) < CELL or max(height, width) > MOST_SIDE or height * width > MOST_AREA:
                raise InputError(
                    f"size {size}: expected a height and a width from {CELL}, a cell of the network, to {MOST_SIDE:,} "
                    f"pixels, at most {MOST_AREA:,} pixels in all"
                )
            return height, width
        try:
            size = float(size)
        except ValueError:
            raise InputError(f"size: {SIZES}, got {size!r}") from None
    return _require_factor(size, f"size: {SIZES}; a factor is")


def _require_factor(factor: Any, expected: str) -> float:
    factor = plain_number(factor)
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= MOST_FACTOR:
        raise InputError(f"{expected} above 0, at most {MOST_FACTOR:g}, got {factor!r}")
    return float(factor)


def resize_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """B×C×H×W to `size` (height, width): bilinear, averaging over the pixel's area when it shrinks."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)


def resize_prediction(prediction: DepthPrediction, size: tuple[int, int]) -> DepthPrediction:
    """The prediction's maps at `size` (height, width), disparity in the new pixels, without features and heads.

    Depth is interpolated by its inverse, as disparity is: that is linear across the image of a plane, so surfaces
    stay what they are, and depth = f·B / disparity still holds after it.
    """
    disparity = prediction.disparity
    if disparity is not None:
        disparity = resize_image(disparity, size) * (size[1] / disparity.shape[-1])
    return DepthPrediction(
        depth=_inverse(resize_image(_inverse(prediction.depth.float()), size)),
        log_scale=None if prediction.log_scale is None else resize_image(prediction.log_scale.float(), size),
        features=(),
        disparity=disparity,
    )


def merge_flipped(prediction: DepthPrediction, mirrored: DepthPrediction, flip: Flip) -> DepthPrediction:
    """One prediction from that of an image and that of its mirror image; depth and log scale, without features.

    "mean": the plain mean of both depths (AdaBins, ZoeDepth). "monodepth": the mean in the middle, and within a
    twentieth of the width from a side the one of the two whose picture had that side on its right: for the left rim
    the mirrored one, for the right rim the other, with a ramp as wide again in between (Godard et al., 1609.03677, made
    for what a stereo pair does not show at the left rim; NeWCRFs uses it on depths).
    """
    share: Tensor | float = 0.5
    if flip == "monodepth":
        depth = prediction.depth
        across = torch.linspace(0.0, 1.0, depth.shape[-1], device=depth.device, dtype=depth.dtype)
        left_rim = 1.0 - (20.0 * (across - 0.05)).clamp(0.0, 1.0)
        share = 0.5 + 0.5 * left_rim - 0.5 * left_rim.flip(-1)  # of the mirrored prediction

    def merged(own: Tensor, other: Tensor) -> Tensor:
        return own + share * (other.flip(-1) - own)

    log_scale = prediction.log_scale
    if log_scale is not None:
        log_scale = merged(log_scale, mirrored.require_log_scale("the mirrored image"))
    return DepthPrediction(merged(prediction.depth, mirrored.depth), log_scale, features=())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode, and afterwards each of its modules in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _inverse(depth: Tensor) -> Tensor:
    """1 / depth, 0 ↔ 0: a depth of 0 stands for infinitely far (disparity 0). NaN stays NaN."""
    return torch.where(depth == 0, 0.0, 1.0 / torch.where(depth == 0, 1.0, depth))


def _load(path: str | Path, device: torch.device | str) -> LoadedModel:
    """The network of a run, a checkpoint or an exported file."""
    if format_of(path) is None:
        return load_model(path, _device(device))
    if str(device) not in ("auto", "cpu"):
        raise InputError(f"device: {path} is an exported file, which runs on the CPU here, got {device}")
    network = open_exported(path)
    note = network.config
    return LoadedModel(
        network, note.kind, {}, note.size or note.trained_size, Path(path), note.fit, short_side=note.short_side
    )


def _device(device: torch.device | str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise InputError(f'device must be "auto", "cuda", "cpu" or another that torch knows, got {device!r}') from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device} was asked for, but torch sees no CUDA device here")
    return device
