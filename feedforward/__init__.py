"""The fast mode: a network per style, one pass per photo."""

from feedforward.schedule import Intervals, Schedule
from feedforward.style_network import StyleNetwork, load_network, shipped_networks
from feedforward.stylize_photos import stylize_photos
from feedforward.trainer import TrainingReport, train_network
from feedforward.transform_net import TransformNet

__all__ = [
    "Intervals",
    "Schedule",
    "StyleNetwork",
    "TrainingReport",
    "TransformNet",
    "load_network",
    "shipped_networks",
    "stylize_photos",
    "train_network",
]
