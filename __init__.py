"""Photorealistic style transfer: a photo with another's light and colours, and still a photo."""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "data": ["load_photo", "save_photo"],
        "feedforward": ["load_network", "train_network"],
        "ops": ["MattingLaplacian", "StyleObjective"],
        "ops.colour_transfer": ["colour_transfer"],
        "optimize": ["optimize_image"],
    },
)
