"""One image at a time, of any style: optimised, or by the closed form."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "descent": ["Descent"],
        "image_optimizer": ["OptimizedImage", "Step", "optimize_image"],
        "report": ["Report"],
    },
)
