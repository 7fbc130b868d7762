"""The matting Laplacian: `laplacian` is its door, behind it three backends."""

from photostyle.ops.matting.laplacian import BACKENDS, MattingLaplacian

__all__ = ["BACKENDS", "MattingLaplacian"]
