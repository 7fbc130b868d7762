"""Photos, masks and training photos: everything between a file and a tensor."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "full_resolution": ["apply_coefficients", "apply_to_photo"],
        "image_io": ["load_image", "load_photo", "load_visible", "save_image", "save_photo"],
        "metadata": ["Metadata"],
        "masks": ["Masks", "automatic_masks", "save_masks"],
        "painted_masks": ["load_masks"],
        "paths": ["check_output", "find_photos"],
        "photo": ["Photo"],
        "photo_options": ["PhotoOptions"],
        "photo_pair": ["Files", "PhotoPair"],
        "training": ["TrainingPhotos"],
    },
)
