"""What is wrong with a data set, said before a training is: `adu-depth doctor ROOT`."""

from adu_depth.doctor.examine import examine
from adu_depth.doctor.findings import ERROR, OK, WARNING, Finding, Report

__all__ = ["examine", "Report", "Finding", "OK", "WARNING", "ERROR"]
