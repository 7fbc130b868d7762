"""One image at a time, of any style: optimised, or by the closed form."""

from optimize.image_optimizer import OptimizedImage, Step, optimize_image
from optimize.photo_pair import Files, PhotoPair
from optimize.stylize_photo import Report, stylize_photo
from optimize.transfer_colours import transfer_colours

__all__ = [
    "Files",
    "OptimizedImage",
    "PhotoPair",
    "Report",
    "Step",
    "optimize_image",
    "stylize_photo",
    "transfer_colours",
]
