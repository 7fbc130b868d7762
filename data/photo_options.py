"""What all ways to stylise photos have in common, between reading a photo and writing it."""

from dataclasses import dataclass

from photostyle.data.image_io import MAX_PIXELS
from photostyle.data.photo import Photo
from photostyle.ops.errors import check_flag, check_number, check_whole


@dataclass(frozen=True)
class PhotoOptions:
    """How photos are read and results are written.

    Attributes:
        size: long side in pixels at which the result is found; photos are never enlarged.
        full_resolution: apply the result to the photo at its own size.
        strength: 0 gives the photo itself, 1 the result, between them a blend.
        overwrite: whether the output may exist, and is replaced.
        quality: of JPEG, WebP, AVIF, HEIC and films, 1 to 100.
        max_pixels: refuse larger photos.

    Raises:
        ArgumentError: for values other than these.
    """

    size: int = 512
    full_resolution: bool = True
    strength: float = 1.0
    overwrite: bool = False
    quality: int = 95
    max_pixels: int = MAX_PIXELS

    def __post_init__(self):
        check_whole("size", self.size, 32)
        check_flag("full_resolution", self.full_resolution)
        check_number("strength", self.strength, 0, 1)
        check_flag("overwrite", self.overwrite)
        check_whole("quality", self.quality, 1, 100)
        check_whole("max_pixels", self.max_pixels, 1)

    def size_of(self, photo: Photo) -> tuple[int, int]:
        """(height, width) of a photo's result."""
        return photo.size_within(None if self.full_resolution else self.size)
