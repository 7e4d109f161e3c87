"""The loss of arXiv 1803.08673, by which the light-weight pair of 2105.06143 learns: an operation of `adu_kernels`.

What it is, and at which pixels: adu_kernels/depth_gradient_normal/README.md.
"""

from adu_kernels import GradientNormalTerms, depth_gradient_normal_loss

__all__ = ["GradientNormalTerms", "depth_gradient_normal_loss"]
