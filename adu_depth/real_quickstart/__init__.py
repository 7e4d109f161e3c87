"""The larger quickstart: from a rig's pairs, of which nobody measured the depth, to a student that knows metres."""

from adu_depth.real_quickstart.command import draw_page, run_real_quickstart
from adu_depth.real_quickstart.config import RealQuickstartConfig

__all__ = ["run_real_quickstart", "draw_page", "RealQuickstartConfig"]
