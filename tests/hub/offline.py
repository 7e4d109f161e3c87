"""Run by test_transformers.py in a process of its own, without a network: what transformers makes of saved folders."""

from __future__ import annotations

import json
import socket
import sys

import numpy as np


def refuse(*_: object) -> None:
    raise AssertionError("the network was asked")


socket.socket.connect = refuse  # type: ignore[method-assign,assignment]

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoModelForDepthEstimation, pipeline  # noqa: E402
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # noqa: E402

assert "adu_depth" not in sys.modules, "it is to be found through the folder's own code"


def by_auto_classes(job: dict) -> dict:
    model = AutoModelForDepthEstimation.from_pretrained(job["folder"], trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained(job["folder"], trust_remote_code=True)
    left = Image.open(job["left"])
    inputs = processor(images=left, right=job["right"], return_tensors="pt", **job["camera"])
    with torch.no_grad():
        outputs = model(**inputs)
    (found,) = processor.post_process_depth_estimation(outputs, [left.size[::-1]])
    return found


def by_the_stock_pipeline(job: dict) -> dict:
    """transformers' own class, which knows of no camera: its image processor is told."""
    model = AutoModelForDepthEstimation.from_pretrained(job["folder"], trust_remote_code=True)
    processor = AutoImageProcessor.from_pretrained(job["folder"], trust_remote_code=True, **job["camera"])
    pipe = pipeline("depth-estimation", model=model, image_processor=processor, device="cpu")
    assert type(pipe).__module__.startswith("transformers."), type(pipe)
    return pipe(job["left"])


def by_the_pipeline(job: dict) -> dict:
    pipe = pipeline("depth-estimation", model=job["folder"], trust_remote_code=True, device="cpu")
    found = pipe(job["left"], **job["camera"], **({"right": job["right"]} if job["right"] else {}))
    assert found["depth"].size == Image.open(job["left"]).size
    return found


for job in json.load(sys.stdin):
    ways = {"auto": by_auto_classes, "pipeline": by_the_pipeline}
    if not job["right"]:
        ways["stock"] = by_the_stock_pipeline
    for name, way in ways.items():
        maps = {key: value.numpy() for key, value in way(job).items() if isinstance(value, torch.Tensor)}
        np.savez(f"{job['output']}.{name}.npz", **maps)
