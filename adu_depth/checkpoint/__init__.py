"""Checkpoints: what a training writes, and what prediction, evaluation and a resumed training read."""

from adu_depth.checkpoint.folder import (
    Kind,
    LoadedModel,
    best_checkpoint,
    build_model,
    checkpoint_of,
    checkpoint_path,
    config_dict,
    kept_backbone,
    kind_of,
    list_checkpoints,
    load_model,
    remove_old,
    restore_checkpoint,
    save_checkpoint,
)
from adu_depth.checkpoint.wholeness import Standing, read_standing

__all__ = [
    "load_model",
    "LoadedModel",
    "Kind",
    "build_model",
    "list_checkpoints",
    "checkpoint_path",
    "save_checkpoint",
    "restore_checkpoint",
    "kept_backbone",
    "kind_of",
    "config_dict",
    "best_checkpoint",
    "checkpoint_of",
    "remove_old",
    "Standing",
    "read_standing",
]
