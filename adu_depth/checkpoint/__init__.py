"""Checkpoints: what a training writes, and what prediction, evaluation and a resumed training read."""

from adu_depth.checkpoint.folder import (
    Kind,
    LoadedModel,
    build_model,
    checkpoint_path,
    config_dict,
    kept_backbone,
    list_checkpoints,
    load_model,
    restore_checkpoint,
    save_checkpoint,
)

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
    "config_dict",
]
