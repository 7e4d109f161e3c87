"""Backbones of `transformers`: a configuration from a text, a folder, the hub or a checkpoint, and weights for it.

Nothing that a folder or the hub holds is run, and of weights only safetensors are read. transformers is imported where
it is used: it takes a second, and the built-in encoder needs none of it.
"""

from __future__ import annotations

import ast
import logging
import os
import re
from pathlib import Path
from typing import Any, TypedDict

from torch import nn

from adu_depth.errors import InputError
from adu_depth.models.backbone_settings import check_settings
from adu_depth.schema import read_json, shown
from adu_depth.tensor_files import non_finite, read_forms, some

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
_SHARD = re.compile(r"[\w.-]+\.safetensors")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.pkl")
"""Weights that are programs, or of libraries that are not used here."""

logger = logging.getLogger(__name__)


class _Index(TypedDict):
    """Which file each tensor of a network is in."""

    weight_map: dict[str, str]


def families() -> list[str]:
    """The backbone families that "config:<family>" accepts."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

    return sorted(set(MODEL_FOR_BACKBONE_MAPPING_NAMES) - {"timm_backbone"})  # timm is no dependency of ours


def accepted() -> str:
    return (
        "Accepted: 'small'; a Hugging Face backbone such as 'microsoft/resnet-50'; a local directory with one; "
        f"'config:<family>?<key>=<value>&…' with a family of {', '.join(families())}"
    )


def config_from_text(text: str) -> Any:
    """The transformers configuration that "config:<family>?<key>=<value>&…" describes."""
    from transformers import AutoConfig

    family, _, query = text.removeprefix("config:").partition("?")
    if family not in families():
        raise InputError(f"encoder: unknown backbone family {family!r} in {text!r}. {accepted()}")
    options = {}
    known = AutoConfig.for_model(family)
    for item in filter(None, query.split("&")):
        key, equals, value = item.partition("=")
        if not equals or not hasattr(known, key):  # transformers itself would swallow an unknown key
            raise InputError(f"encoder: {item!r} in {text!r} is no <key>=<value> that {family} has")
        options[key] = _parse(value)
    check_settings(options, text)
    try:
        return AutoConfig.for_model(family, **options)
    except Exception as error:
        raise InputError(f"encoder: {family} refuses the configuration {text!r}: {error}") from error


def _parse(value: str) -> Any:
    """A Python literal; comma-separated values are a list; a bare word is text."""
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the latter two: brackets without end
        return value
    return list(parsed) if isinstance(parsed, tuple) else parsed


def config_from_hub(name: str) -> Any:
    from transformers import AutoConfig, PretrainedConfig

    folder = Path(name)
    try:
        # Plain JSON, before anything follows what it says.
        settings = read_json(folder / CONFIG) if folder.is_dir() else PretrainedConfig.get_config_dict(name)[0]
        check_settings(settings, name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:
        raise InputError(_unreachable(name, error)) from error
    if not hasattr(config, "out_features") or config.model_type not in families():
        raise InputError(f"encoder {name!r} is a {config.model_type!r}, which is no backbone. {accepted()}")
    return config


def config_from_settings(settings: dict[str, Any], name: str) -> Any:
    from transformers import AutoConfig

    family = settings.get("model_type")
    if family not in families():
        raise InputError(f"encoder {name!r}: the kept configuration is of a {shown(family)}, which is no backbone here")
    check_settings(settings, name)
    try:
        return AutoConfig.for_model(family, **{k: v for k, v in settings.items() if k != "model_type"})
    except Exception as error:
        raise InputError(f"encoder {name!r}: {family} refuses the kept configuration: {error}") from error


def random_backbone(config: Any, name: str) -> nn.Module:
    from transformers import AutoBackbone

    try:
        return AutoBackbone.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise InputError(f"encoder {name!r} cannot be built: {error}") from error


def trained_backbone(config: Any, name: str) -> nn.Module:
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING
    from transformers.utils import cached_file

    folder = Path(name)
    try:
        if folder.is_dir():
            _require_safetensors(folder, name)
        elif index := cached_file(name, INDEX, _raise_exceptions_for_missing_entries=False):
            _require_weights_within(Path(index), name)
        # The class itself, not AutoBackbone: that one asks the hub even for a directory, and may hand over to timm.
        backbone_class = MODEL_FOR_BACKBONE_MAPPING[type(config)]
        backbone, info = backbone_class.from_pretrained(
            name, config=config, output_loading_info=True, use_safetensors=True, trust_remote_code=False
        )
    except InputError:
        raise
    except Exception as error:
        raise InputError(_unreachable(name, error)) from error
    # Norms of single stages belong to the backbone head and are in no checkpoint of a classifier.
    missing = [key for key in info["missing_keys"] if "hidden_states_norms" not in key]
    if missing:
        raise InputError(f"encoder {name!r}: its weights lack {len(missing)} tensors, e.g. {sorted(missing)[:3]}")
    broken = non_finite(backbone.state_dict())
    if broken:
        raise InputError(f"encoder {name!r}: its weights are NaN or infinite in {len(broken)} tensors ({some(broken)})")
    logger.info("encoder %s: pretrained weights loaded", name)
    return backbone


def _require_safetensors(folder: Path, name: str) -> None:
    """InputError where a folder has no weights that can be read without running what is in them."""
    _require_weights_within(folder / INDEX, name)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        others = sorted(p.name for pattern in PICKLED for p in folder.glob(pattern))
        found = f"{some(others)}, which are pickles and never loaded" if others else "none"
        raise InputError(f"encoder {name!r}: expected weights in *.safetensors, got {found}")
    for path in weights:
        read_forms(path)


def _require_weights_within(index: Path, name: str) -> None:
    """InputError where the list of a network's weight files names any but safetensors beside it: transformers follows
    it to pickles, and out of the folder. Nothing where there is no such list."""
    if not os.path.lexists(index):
        return
    listed: dict[str, str] = read_json(index, _Index)["weight_map"]
    outside = sorted({file for file in listed.values() if not _SHARD.fullmatch(file)})
    if outside:
        raise InputError(
            f"encoder {name!r}: {index.name}: expected names of *.safetensors files beside it, got "
            f"{shown(outside[0])}, which is never loaded"
        )


def _unreachable(name: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (
        f"encoder {name!r} cannot be loaded: {reason} Check the name and the network; without a network give a local "
        "directory, or train from random weights with 'small' or 'config:…' and pretrained=False. " + accepted()
    )
