"""What teacher and student are trained by."""

from adu_depth.distillation.light_loss import LightLoss
from adu_depth.distillation.student_loss import DistillationConfig, StudentLoss
from adu_depth.distillation.teacher_loss import TeacherLoss, TeacherLossConfig

__all__ = ["DistillationConfig", "StudentLoss", "LightLoss", "TeacherLoss", "TeacherLossConfig"]
