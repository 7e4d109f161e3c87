"""Depth for images: the predictor, the files it writes, the pictures people read."""

from adu_depth.inference.predict_files import PredictOutcome, predict_files
from adu_depth.inference.predictor import Predictor
from adu_depth.inference.render import write_samples

__all__ = ["Predictor", "predict_files", "PredictOutcome", "write_samples"]
