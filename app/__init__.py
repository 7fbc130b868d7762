"""The web page: drop a photo and a style, look, download."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "server": ["serve"],
        "session": ["Result", "Session"],
        "settings": ["Settings"],
    },
)
