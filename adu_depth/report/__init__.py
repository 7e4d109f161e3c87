"""report.html: the result of a teacher–student run as one file that opens anywhere."""

from adu_depth.report.document import write_report
from adu_depth.report.scenes import Reference, ScenePanel

__all__ = ["Reference", "ScenePanel", "write_report"]
