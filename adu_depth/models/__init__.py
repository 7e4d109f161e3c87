"""Teacher, student and adapters."""

from adu_depth.models.adapter import FeatureAdapter, FeatureAdapters
from adu_depth.models.encoder import build_encoder
from adu_depth.models.light import LightConfig, LightStudent, LightTeacher
from adu_depth.models.light_weights import load_encoder, load_published
from adu_depth.models.mono_student import MonoStudent, StudentConfig
from adu_depth.models.prediction import DepthPrediction
from adu_depth.models.stereo_teacher import StereoTeacher, TeacherConfig
from adu_depth.models.students import Student, build_student, takes_pairs

__all__ = [
    "DepthPrediction",
    "StereoTeacher",
    "TeacherConfig",
    "MonoStudent",
    "StudentConfig",
    "Student",
    "build_student",
    "takes_pairs",
    "LightStudent",
    "LightTeacher",
    "LightConfig",
    "load_encoder",
    "load_published",
    "FeatureAdapter",
    "FeatureAdapters",
    "build_encoder",
]
