"""The fast mode: a network per style, one pass per photo."""

from feedforward.style_network import StyleNetwork, load_network, shipped_networks
from feedforward.transform_net import TransformNet

__all__ = ["StyleNetwork", "TransformNet", "load_network", "shipped_networks"]
