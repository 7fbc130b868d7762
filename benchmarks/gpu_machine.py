"""What is measured on, where there is an NVIDIA GPU."""

import subprocess
from datetime import datetime
from importlib import metadata

import torch

QUERIED = {
    "card": "name",
    "driver": "driver_version",
    "SM clock": "clocks.sm",
    "highest SM clock": "clocks.max.sm",
    "memory clock": "clocks.mem",
    "temperature": "temperature.gpu",
}
"""What is asked of nvidia-smi."""


def gpu_machine() -> dict[str, str]:
    """Card, driver and clocks at this moment, as far as nvidia-smi tells; versions and date."""
    cupy = metadata.packages_distributions().get("cupy")
    return {
        **dict(zip(QUERIED, _nvidia_smi(), strict=False)),
        "PyTorch": torch.__version__,
        "CUDA": str(torch.version.cuda),
        "CuPy": metadata.version(cupy[0]) if cupy else "none",
        "date": f"{datetime.now():%Y-%m-%d %H:%M}",
    }


def _nvidia_smi() -> list[str]:
    words = ["nvidia-smi", f"--query-gpu={','.join(QUERIED.values())}", "--format=csv,noheader"]
    try:
        printed = subprocess.run(words, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [value.strip() for value in printed.partition("\n")[0].split(",")]
