"""The matting Laplacian, VGG features and the style transfer objective."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "errors": ["ArgumentError"],
        "features": ["VGGFeatures"],
        "guided_filter": ["GuidedFilter"],
        "losses": ["LossTerms"],
        "matting": ["MattingLaplacian"],
        "objective": ["StyleObjective", "Targets"],
        "style_losses": ["GRAM", "MEAN_STD", "Transport"],
    },
)
