"""Photos, masks and training images: everything between a file and a tensor."""

from data.full_resolution import apply_coefficients
from data.images import Photo, check_output, load_image, load_photo, save_image, save_photo
from data.masks import Masks, load_masks
from data.segmentation import save_masks, segment_together

__all__ = [
    "Masks",
    "Photo",
    "apply_coefficients",
    "check_output",
    "load_image",
    "load_masks",
    "load_photo",
    "save_image",
    "save_masks",
    "save_photo",
    "segment_together",
]
