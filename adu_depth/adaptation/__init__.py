"""A trained stereo teacher goes on on a rig's own pairs, of which nobody measured the depth."""

from adu_depth.adaptation.command import adapt
from adu_depth.adaptation.config import AdaptConfig

__all__ = ["adapt", "AdaptConfig"]
