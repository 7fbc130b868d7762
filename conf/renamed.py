"""Arguments that had other names in earlier versions."""

import re

RENAMED = {
    "encoder.encoder": "encoder.model",
    "photorealism.projection": "photorealism.guided_filter",
    "photorealism.energy_weight": "photorealism.matting_weight",
    "photorealism.energy_radius": "photorealism.matting_radius",
    "photorealism.energy_epsilon": "photorealism.matting_ridge (ε/|w|)",
    "objective.energy_weight": "objective.matting_weight",
    "objective.energy_radius": "objective.matting_radius",
    "objective.energy_epsilon": "objective.matting_ridge (ε/|w|)",
    "objective.variation_weight": "objective.total_variation_weight",
    "schedule.average": "schedule.ema_decay",
    "schedule.accumulate": "schedule.gradient_accumulation",
}


def new_name(key: str, value: str) -> str | None:
    """What a key, or the group it belongs to, is called now; ``None`` if its name is not old.

    Of ``encoder=vgg19`` it is the value that was a name.
    """
    if key == "encoder" and re.fullmatch(r"vgg\d+(_bn)?", value):
        return f"encoder.model={value}"
    for old, new in RENAMED.items():
        if key == old or key.startswith(f"{old}."):
            return new + key[len(old) :]
    return None
