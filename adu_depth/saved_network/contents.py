"""What the files of a saved network say, for this library and for transformers alike."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from adu_depth.checkpoint import LoadedModel
from adu_depth.checkpoint.wholeness import STATE
from adu_depth.files import read_text
from adu_depth.saved_network.folder import CARD, CODE, CONFIG, MODEL_TYPE, PROCESSOR, is_saved, without_folders
from adu_depth.schema import read_json

AUTO_MAP = {
    "AutoConfig": f"{CODE}.AduDepthConfig",
    "AutoModelForDepthEstimation": f"{CODE}.AduDepthModel",
    "AutoImageProcessor": f"{CODE}.AduDepthImageProcessor",
}
Settings = dict[str, Any]
"""kind, data, model and backbone, as an `AduDepthConfig` has them."""


def settings_of(loaded: LoadedModel) -> Settings:
    """What a network is rebuilt from, and how images are brought to it; nothing of the machine that trained it."""
    model = {**loaded.config["model"], "pretrained": False}
    for name in ("encoder", "encoder_weights"):
        if name in model:
            model[name] = without_folders(model[name])
    return {
        "kind": loaded.kind,
        "data": {
            "size": list(loaded.size),
            "fit": loaded.fit,
            "short_side": loaded.short_side,
            "crop_scale": list(loaded.crop_scale),
        },
        "model": model,
        "backbone": loaded.config.get("backbone"),
    }


def steps_of(loaded: LoadedModel) -> int | None:
    """How many steps it was trained for, where that is known."""
    state = loaded.path / STATE
    return read_json(state).get("step") if state.is_file() else None


def card_of(loaded: LoadedModel) -> str | None:
    """The model card that lies beside a saved network; None of any other, and where there is none."""
    card = loaded.path / CARD
    return read_text(card) if is_saved(loaded.path) and card.is_file() else None


def texts(settings: Mapping[str, Any], card: str) -> dict[str, str]:
    """The text files of a folder by name."""
    config = {
        "model_type": MODEL_TYPE,
        "architectures": ["AduDepthModel"],
        "auto_map": AUTO_MAP,
        "custom_pipelines": custom_pipelines(),
        "transformers_version": importlib.metadata.version("transformers"),
        **{name: settings[name] for name in ("kind", "data", "model", "backbone")},
    }
    processor = {
        "auto_map": {"AutoImageProcessor": AUTO_MAP["AutoImageProcessor"]},
        "do_resize": True,
        "image_processor_type": "AduDepthImageProcessor",
        **processor_settings(settings),
    }
    written = {name: value for name, value in processor.items() if value is not None}  # as transformers writes it
    return {
        CONFIG: json.dumps(config, indent=2) + "\n",
        PROCESSOR: json.dumps(written, indent=2, sort_keys=True) + "\n",
        CARD: card,
    }


def processor_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an image processor must know: `size` as transformers writes it, None for an image's own; whether it takes
    pairs; the focal length that depth is scaled from."""
    data = settings["data"]
    size = None
    if data.get("fit", "resize") == "resize":
        size = dict(zip(("height", "width"), data["size"], strict=True))
    elif data.get("short_side"):
        size = {"shortest_edge": data["short_side"]}
    focal = settings["model"].get("reference_focal")
    return {"size": size, "stereo": settings["kind"] == "teacher", "reference_focal": focal}


def custom_pipelines() -> dict[str, Any]:
    """Who answers `pipeline("depth-estimation")`; a dict of its own each time, since transformers writes into it."""
    return {"depth-estimation": {"impl": f"{CODE}.AduDepthPipeline", "pt": ["AutoModelForDepthEstimation"]}}
