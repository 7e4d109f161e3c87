"""How the student is trained on the pairs: the one place where that is said."""

from __future__ import annotations

from dataclasses import dataclass, field

from adu_depth.data.augmentation import AugmentationConfig
from adu_depth.distillation import DistillationConfig
from adu_depth.models import StudentConfig

SIZE = (192, 640)
"""Height and width that frames are brought to."""


@dataclass(frozen=True)
class StudentPlan:
    """model: the network; a light one also gets its encoder's weights and a reference focal length. ema: of the weights
    (`loop.ema`)."""

    model: StudentConfig
    steps: int
    batch_size: int
    learning_rate: float
    ema: float = 0.0
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)


PLAIN = StudentPlan(StudentConfig(), steps=300, batch_size=8, learning_rate=2e-3)
"""The quickstart's own student, which begins with random weights."""
LIGHT = StudentPlan(
    StudentConfig(network="light"),
    steps=300,
    batch_size=6,
    learning_rate=4e-4,
    ema=0.98,
    augmentation=AugmentationConfig(colour=0.8, strength=0.2, contrast=0.3, saturation=0.5, zoom=1.5),
)
"""The light network, whose encoder has seen photographs (`--encoder-weights`). Few pairs are soon known by heart: they
are magnified, as its reference focal length allows, and the weights averaged."""
