"""The slow, high-quality mode: one image, optimised."""

from optimize.image_optimizer import OptimizedImage, Projection, Step, optimize_image

__all__ = ["OptimizedImage", "Projection", "Step", "optimize_image"]
