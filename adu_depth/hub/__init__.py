"""Trained networks by name, for transformers, whose Auto classes know them once this is imported."""

from transformers import AutoConfig, AutoModelForDepthEstimation
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # by its short name it wants torchvision

from adu_depth.hub.configuration import AduDepthConfig
from adu_depth.hub.image_processor import AduDepthImageProcessor
from adu_depth.hub.model import AduDepthModel, AduDepthOutput
from adu_depth.hub.pipeline import AduDepthPipeline

AutoConfig.register(AduDepthConfig.model_type, AduDepthConfig, exist_ok=True)
AutoModelForDepthEstimation.register(AduDepthConfig, AduDepthModel, exist_ok=True)
AutoImageProcessor.register(
    AduDepthConfig,
    image_processor_classes={"pil": AduDepthImageProcessor, "torchvision": AduDepthImageProcessor},
    exist_ok=True,
)

__all__ = ["AduDepthModel", "AduDepthConfig", "AduDepthImageProcessor", "AduDepthPipeline", "AduDepthOutput"]
