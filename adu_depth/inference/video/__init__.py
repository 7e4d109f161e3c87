"""Depth for clips: what frames are read from, how steady their depths are, and the video that shows them."""

from adu_depth.inference.video.config import VideoConfig
from adu_depth.inference.video.flicker import Flicker, FlickerMeter
from adu_depth.inference.video.predict_clip import ClipOutcome, predict_clip
from adu_depth.inference.video.sources import open_clip
from adu_depth.inference.video.stabilise import Stabiliser

__all__ = ["predict_clip", "ClipOutcome", "open_clip", "VideoConfig", "Stabiliser", "Flicker", "FlickerMeter"]
