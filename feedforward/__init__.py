"""Feed-forward networks, of one style or of any: one pass per photo."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "schedule": ["Intervals", "Schedule"],
        "style_network": ["StyleNetwork", "load_network", "shipped_networks"],
        "style_source": ["StyleSource"],
        "style_statistics": ["load_style", "save_style"],
        "train": ["RunOptions", "train_network"],
        "training_run": ["TrainingReport"],
        "transform_net": ["TransformNet"],
        "universal_net": ["StyleStatistics", "UniversalNet"],
    },
)
