"""From images to what a network sees, and from what it says to depth at the images' own size: as `Predictor` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from adu_depth.data.camera_file import camera_from_numbers
from adu_depth.data.transforms import short_side_size
from adu_depth.errors import InputError
from adu_depth.files import replacing
from adu_depth.geometry import stack_cameras
from adu_depth.hub.configuration import AduDepthConfig
from adu_depth.hub.views import require_numbers, view_of
from adu_depth.images import image_batch
from adu_depth.inference.predictor import require_reasonable, resize_image, resize_prediction
from adu_depth.models.prediction import DepthPrediction
from adu_depth.saved_network.contents import AUTO_MAP, processor_settings
from adu_depth.saved_network.folder import CODE_FILE, CODE_TEXT, PROCESSOR
from adu_kernels.checks import plain_number

Size = dict[str, int]
"""{"height": …, "width": …}, or {"shortest_edge": …}."""
Numbers = float | Sequence[float]
CAMERA = ("fx", "baseline", "disparity_offset")


class AduDepthImageSettings(TypedDict, total=False):
    """What `AutoImageProcessor.from_pretrained(folder, NAME=VALUE)` may set anew."""

    size: Size | None
    do_resize: bool
    stereo: bool
    reference_focal: float | None
    fx: float | None
    baseline: float | None
    disparity_offset: float | None


class AduDepthImageProcessor(BaseImageProcessor):
    """Brings images to the size that a network works at, and its depth back to theirs.

    A camera is given as numbers of the images as they come: here for all of them, or in a call for its own.

    Args:
        size: what images are resized to: {"height", "width"}, or {"shortest_edge"}; None leaves each at its own.
        do_resize: False leaves each at its own size, whatever `size` says (`predict --size full`).
        stereo: whether the network takes pairs.
        reference_focal: pixels; of a student whose depth is scaled by the focal length.
        fx: focal length in pixels of the images.
        baseline: distance of a pair's cameras, metres.
        disparity_offset: cx of the right view minus cx of the left, pixels; None is 0.
        kwargs: what every image processor keeps.

    Returns:
        Called with an image or a list of images (and right=, fx=, baseline=, disparity_offset=), a BatchFeature of
        what `AduDepthModel` takes. Images are files, URLs, PIL pictures, H×W×3 arrays or 3×H×W tensors.

    Raises:
        InputError: no image, images of several sizes in one call where they are not resized to one, or enlarged to more
            than 2²² pixels, no camera where metres need one, numbers that are no camera's.

    Example:
        >>> processor = AduDepthImageProcessor(size={"height": 64, "width": 96})
        >>> inputs = processor(torch.rand(3, 120, 160), fx=150.0)
        >>> inputs["pixel_values"].shape, inputs["fx"]
        (torch.Size([1, 3, 64, 96]), [90.0])
    """

    model_input_names = ("pixel_values",)
    valid_kwargs = AduDepthImageSettings

    def __init__(
        self,
        size: Size | None = None,
        do_resize: bool = True,
        stereo: bool = False,
        reference_focal: float | None = None,
        fx: float | None = None,
        baseline: float | None = None,
        disparity_offset: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        _sides(size)
        self.size, self.do_resize, self.stereo, self.reference_focal = size, do_resize, stereo, reference_focal
        self.fx, self.baseline, self.disparity_offset = fx, baseline, disparity_offset
        self.auto_map = {"AutoImageProcessor": AUTO_MAP["AutoImageProcessor"]}

    @classmethod
    def of(cls, config: AduDepthConfig) -> AduDepthImageProcessor:
        """That which does to images what was done to those the network was evaluated on, see `Predictor`."""
        return cls(**processor_settings(vars(config)))

    def preprocess(
        self,
        images: Any,
        right: Any = None,
        *,
        fx: Numbers | None = None,
        baseline: Numbers | None = None,
        disparity_offset: Numbers | None = None,
        size: Size | None = None,
        do_resize: bool | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """See the class. pixel_values and right_pixel_values: B×3×h×w float32 in [0, 1]; fx, baseline and
        disparity_offset: lists of B numbers, of the resized images."""
        if return_tensors != "pt":
            raise InputError(f'return_tensors: expected "pt", tensors of torch, got {return_tensors!r}')
        lefts = self._views("images", images)
        own = [(view.shape[-2], view.shape[-1]) for view in lefts]
        resized = self.do_resize if do_resize is None else do_resize
        height, width, short_side = _sides((size or self.size) if resized else None)
        work = [(height, width) if height else short_side_size(one, short_side) if short_side else one for one in own]
        for before, after in zip(own, work, strict=True):
            require_reasonable(before, after, "size:", "a smaller one, or do_resize=False")
        if len(set(work)) > 1:
            sizes = ", ".join(f"{h}×{w}" for h, w in dict.fromkeys(own))
            raise InputError(f"images: expected one size in a call, got {sizes}; give them one by one")
        inputs = {"pixel_values": torch.cat([resize_image(view, work[0]) for view in lefts])}
        if self.stereo:
            inputs["right_pixel_values"] = torch.cat([resize_image(v, work[0]) for v in self._rights(right, own)])
        elif right is not None:
            raise InputError("right: this network looks at one image, got a second one")
        return BatchFeature({**inputs, **self._camera(own, work[0], (fx, baseline, disparity_offset))})

    def post_process_depth_estimation(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | Tensor | None = None
    ) -> list[dict[str, Tensor]]:
        """What the network says, image by image, at `target_sizes`, (height, width) each; None leaves it as it is.

        predicted_depth: H×W metres. log_scale: H×W, natural log of the Laplace scale of ln(depth), where the network
        predicts it. disparity: H×W pixels, of a teacher. InputError where a value is NaN or infinite.
        """
        depths = outputs["predicted_depth"]
        whole = [(depths.shape[-2], depths.shape[-1])] * len(depths)
        sizes = whole if target_sizes is None else [(int(height), int(width)) for height, width in target_sizes]
        if len(sizes) != len(depths):
            raise InputError(f"target_sizes: expected {len(depths)}, one for each image, got {len(sizes)}")
        found = []
        for index, size in enumerate(sizes):
            maps = {name: outputs.get(name) for name in ("predicted_depth", "log_scale", "disparity")}
            depth, log_scale, disparity = (None if m is None else m[index][None, None] for m in maps.values())
            assert depth is not None
            prediction = DepthPrediction(depth, log_scale, (), disparity)
            prediction = resize_prediction(prediction, size)
            prediction.require_finite(f"image {index}" if len(sizes) > 1 else "the image")
            values = zip(maps, (prediction.depth, prediction.log_scale, prediction.disparity), strict=True)
            found.append({name: value[0, 0] for name, value in values if value is not None})
        return found

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Writes preprocessor_config.json and the file through which transformers finds this class."""
        if push_to_hub:
            raise InputError("push_to_hub: push the model, which brings its image processor along")
        texts = {PROCESSOR: self.to_json_string(), CODE_FILE: CODE_TEXT}
        for name, text in texts.items():
            with replacing(Path(save_directory) / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
        return [str(Path(save_directory) / name) for name in texts]

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoImageProcessor") -> None:
        """Nothing: transformers would copy this library's files into a saved folder, which imports them."""

    def _views(self, name: str, images: Any) -> list[Tensor]:
        batch = list(images) if isinstance(images, list | tuple) else [images]
        if isinstance(images, Tensor) and images.ndim == 4:
            batch = list(images)
        if not batch:
            raise InputError(f"{name}: expected an image, got an empty list")
        return [image_batch(name, view_of(name, image, self.stereo)) for image in batch]

    def _rights(self, right: Any, own: list[tuple[int, int]]) -> list[Tensor]:
        if right is None:
            raise InputError("right: a stereo teacher needs the right image too, got the left one only: give right=…")
        rights = self._views("right", right)
        sizes = [(view.shape[-2], view.shape[-1]) for view in rights]
        if sizes != own:
            told = [", ".join(f"{h}×{w}" for h, w in some) for some in (own, sizes)]
            raise InputError(f"right: expected images of the left ones' sizes, {told[0]}, got {told[1]}")
        return rights

    def _camera(
        self, own: list[tuple[int, int]], work: tuple[int, int], given: tuple[Numbers | None, ...]
    ) -> dict[str, list[float]]:
        """The numbers of the resized images; {} where none are known or needed. fp32, as `Predictor` reckons."""
        told = [self.__dict__[name] if value is None else value for name, value in zip(CAMERA, given, strict=True)]
        fx, baseline, offset = (_one_each(n, v, len(own)) for n, v in zip(CAMERA, told, strict=True))
        require_numbers(self.stereo, self.reference_focal, fx, baseline)
        if fx is None:
            return {}
        found: dict[str, list[float]] = {name: [] for name in CAMERA}
        for index, (height, width) in enumerate(own):
            metres = None if baseline is None else baseline[index]
            if self.stereo and not (metres or 0) > 0:
                raise InputError(f"baseline: expected a positive number of metres, got {metres}")
            camera = camera_from_numbers(
                fx[index], baseline=metres, disparity_offset=None if offset is None else offset[index], needed=("fx",)
            )
            assert camera is not None
            resized = stack_cameras([camera]).resized(work[1] / width, work[0] / height)
            for name in CAMERA:
                found[name].append(float(getattr(resized, name)))
        return found


def _one_each(name: str, value: Any, count: int) -> list[float] | None:
    if value is None:
        return None
    value = plain_number(value)
    several = list(value) if isinstance(value, list | tuple | Tensor | np.ndarray) else [value]
    numbers = [plain_number(one) for one in several]
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
        raise InputError(f"{name}: expected a number, got {value!r:.80}")
    if len(numbers) not in (1, count):
        raise InputError(f"{name}: expected one number, or {count}, one for each image, got {len(numbers)}")
    return [float(one) for one in (numbers * count if len(numbers) == 1 else numbers)]


def _sides(size: Any) -> tuple[int, int, int]:
    """Height, width and short side that images are brought to; 0 where they are not."""
    known = ({"height", "width"}, {"shortest_edge"})
    sides = {} if size is None else dict(size)
    wrong = sides and (set(sides) not in known or not all(type(v) is int and v > 0 for v in sides.values()))
    if wrong:
        raise InputError(f"size: expected height and width, or shortest_edge, in pixels, got {json.dumps(sides)[:200]}")
    return sides.get("height", 0), sides.get("width", 0), sides.get("shortest_edge", 0)
