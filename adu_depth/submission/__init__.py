"""Results for KITTI's depth prediction benchmark: written as it wants them, and checked before they are sent."""

from adu_depth.submission.validate import validate_zip
from adu_depth.submission.write import write_submission

__all__ = ["write_submission", "validate_zip"]
