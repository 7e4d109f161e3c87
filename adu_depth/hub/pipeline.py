"""`pipeline("depth-estimation")` with a camera and, of a stereo teacher, with pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers.pipelines.depth_estimation import DepthEstimationPipeline

from adu_depth.errors import InputError
from adu_depth.hub.image_processor import CAMERA
from adu_depth.hub.views import file_of, orientation_to_turn, view_of
from adu_depth.images import image_batch
from adu_depth.inference.predict_files import ImageTask, camera_beside

PARTS = ("image", "right", *CAMERA)


class AduDepthPipeline(DepthEstimationPipeline):
    """Depth in metres of images: files, URLs, PIL pictures, arrays, or dicts of these and their cameras.

        pipe("street.png")
        pipe("street.png", fx=721.5)                                     # pixels of the image
        pipe("left/1.png", right="right/1.png", fx=721.5, baseline=0.54)   # metres
        pipe([{"image": "left/1.png", "right": "right/1.png"}, …], fx=721.5, baseline=0.54)

    Where metres need a camera and none is given, a file's is looked for in camera.toml beside it, as in `adu-depth
    predict`. Each answer has predicted_depth (H×W, metres, of the image's size), depth (a grey PIL picture, the nearest
    black), and, where the network says them, log_scale and disparity.
    """

    def check_model_type(self, supported_models: Any) -> None:
        """Nothing: transformers knows its own classes by name."""

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        known = {"timeout", *PARTS[1:]}
        if strange := parameters.keys() - known:
            raise InputError(f"{', '.join(sorted(strange))}: no such parameter; known are {', '.join(sorted(known))}")
        return {name: value for name, value in parameters.items() if value is not None}, {}, {}

    def preprocess(self, image: Any, timeout: float | None = None, **given: Any) -> Any:
        if isinstance(image, dict):
            if strange := image.keys() - set(PARTS):
                raise InputError(f"{', '.join(map(str, sorted(strange)))}: expected {', '.join(PARTS)}")
            given |= {name: value for name, value in image.items() if value is not None}
            image = given.pop("image", None)
        processor = self.image_processor
        left = image_batch("image", view_of("image", image, processor.stereo, timeout))
        size = (left.shape[-2], left.shape[-1])
        needed = processor.stereo or processor.reference_focal is not None
        if needed and (path := file_of(image)) and all(given.get(n, getattr(processor, n)) is None for n in CAMERA):
            given |= self._camera_beside(path, given.get("right"), size)
        if (right := given.get("right")) is not None:
            given["right"] = view_of("right", right, processor.stereo, timeout)
        inputs = processor(left, return_tensors="pt", **given).to(self.dtype)
        inputs["target_size"] = size
        return inputs

    def postprocess(self, model_outputs: Any) -> dict[str, Any]:
        from PIL import Image

        (found,) = self.image_processor.post_process_depth_estimation(model_outputs, [model_outputs["target_size"]])
        depth = found["predicted_depth"].float().numpy()
        low, high = float(depth.min()), float(depth.max())
        grey = (depth - low) / max(high - low, 1e-12)
        return {**found, "depth": Image.fromarray((grey * 255).astype(np.uint8))}

    def _camera_beside(self, left: Any, right: Any, size: tuple[int, int]) -> dict[str, float]:
        stereo = self.image_processor.stereo
        views = left.parent if right is not None else None
        task = ImageTask(left.stem, left, file_of(right), views)
        camera = camera_beside(task, size, stereo, orientation_to_turn(left, stereo))
        return {name: float(getattr(camera, name)) for name in CAMERA}
