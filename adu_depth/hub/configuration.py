"""What config.json of a saved network says: enough to rebuild it, for this library and for transformers alike."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from adu_depth.checkpoint import Kind, config_dict
from adu_depth.data.config import DataConfig
from adu_depth.models import StudentConfig, TeacherConfig
from adu_depth.saved_network.contents import AUTO_MAP, custom_pipelines
from adu_depth.saved_network.folder import MODEL_TYPE

KEPT_OF_DATA = ("size", "fit", "short_side", "crop_scale")
"""How images are brought to the network. Folders and lists of the run's data are nobody else's concern."""


class AduDepthConfig(PretrainedConfig):
    """The configuration of a teacher or a student, as transformers keeps it.

    Args:
        kind: "teacher" (a stereo pair) or "student" (a single image).
        data: the size that the network was trained at and how images are brought to it: `size` (height, width), `fit`,
            `short_side`, `crop_scale` of a `DataConfig`; None: its defaults.
        model: a `TeacherConfig` or `StudentConfig` as plain values; None: its defaults.
        backbone: the configuration of a transformers encoder, see `build_encoder`; None: there is none.
        kwargs: what every PretrainedConfig takes.

    Returns:
        The configuration. What it says of a network is checked where one is made of it.

    Raises:
        InputError: from `AduDepthModel(config)`, for a setting that is none, of another type, or out of range.

    Example:
        >>> AduDepthConfig(kind="student").model["max_depth"]
        80.0
    """

    model_type = MODEL_TYPE
    auto_map: ClassVar[dict[str, str]] = AUTO_MAP
    custom_pipelines: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        kind: Kind = "student",
        data: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        backbone: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        whole = config_dict(DataConfig())
        self.data = {name: whole[name] for name in KEPT_OF_DATA} if data is None else data
        self.model = config_dict(TeacherConfig() if kind == "teacher" else StudentConfig()) if model is None else model
        self.backbone = backbone

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: `pipeline` puts classes into `custom_pipelines`."""
        return {**super().to_dict(), "auto_map": dict(self.auto_map), "custom_pipelines": custom_pipelines()}

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Nothing: transformers would copy this library's files into a saved folder, which imports them."""
