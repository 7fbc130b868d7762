"""Arguments that had other names in earlier versions."""

RENAMED = {
    "encoder": "encoder.model",
    "photorealism.projection": "photorealism.guided_filter",
    "photorealism.energy_weight": "photorealism.matting_weight",
    "photorealism.energy_radius": "photorealism.matting_radius",
    "photorealism.energy_epsilon": "photorealism.matting_ridge (ε/|w|)",
    "photorealism.raw_energy_weight": "photorealism.raw_matting.weight",
    "photorealism.raw_energy_radius": "photorealism.raw_matting.radius",
    "photorealism.raw_energy_epsilon": "photorealism.raw_matting.ridge (ε/|w|)",
    "objective.energy_weight": "photorealism.matting_weight",
    "objective.variation_weight": "objective.total_variation_weight",
    "schedule.average": "schedule.ema_decay",
    "schedule.accumulate": "schedule.gradient_accumulation",
}


def new_name(key: str) -> str | None:
    """What a key, or the group it belongs to, is called now; ``None`` if its name is not old."""
    for old, new in RENAMED.items():
        if key == old:
            return new
        if key.startswith(f"{old}.") and not new.startswith(f"{old}."):
            return new + key[len(old) :]
    return None
