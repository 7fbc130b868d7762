"""The slow, high-quality mode: one image, optimised."""

from optimize.image_optimizer import OptimizedImage, Step, optimize_image
from optimize.stylize_photo import Report, stylize_photo

__all__ = [
    "OptimizedImage",
    "Report",
    "Step",
    "optimize_image",
    "stylize_photo",
]
