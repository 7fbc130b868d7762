"""Where to compute."""

import torch

from ops.errors import ArgumentError


def select_device(device: str) -> torch.device:
    """``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises:
        ArgumentError: for any other name, and for a GPU that PyTorch does not see.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdecimal())):
        raise ArgumentError("device", device, "unknown; choose one of auto, cpu, cuda, cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise ArgumentError("device", device, f"PyTorch sees {seen} GPUs here; use device=cpu")
    return torch.device(device)
