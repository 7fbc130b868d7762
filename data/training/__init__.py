"""Training photos, from a folder or from shards, as batches of random crops."""

from photostyle.data.training.stream import TrainingPhotos

__all__ = ["TrainingPhotos"]
