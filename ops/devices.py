"""Where to compute."""

import ctypes
import os
import sys
from datetime import timedelta

import torch

from photostyle.ops.errors import ArgumentError, check_choice

LONGEST_WAIT = timedelta(days=7)
"""For another process that works on its share."""
PRECISIONS = ("auto", "float32", "bfloat16")


def select_device(device: str) -> torch.device:
    """``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    ``"auto"`` is a GPU if there is one, and of several that of this process.

    Raises:
        ArgumentError: for any other name, and for a GPU that PyTorch does not see.
    """
    if device == "auto":
        # The number of this process on its machine, as torchrun has it.
        number = int(os.environ.get("LOCAL_RANK", 0)) % max(1, torch.cuda.device_count())
        device = f"cuda:{number}" if torch.cuda.is_available() else "cpu"
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdecimal())):
        raise ArgumentError("device", device, "unknown; choose one of auto, cpu, cuda, cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise ArgumentError("device", device, f"PyTorch sees {seen} GPUs here; use device=cpu")
    return torch.device(device)


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes with bfloat16 in hardware, and so faster than with float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Of a CPU only newer versions of PyTorch tell.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def convolution_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What a network's convolutions compute in: ``"float32"``, ``"bfloat16"``, or ``"auto"``:
    bfloat16 where the hardware has it.

    Raises:
        ArgumentError: for any other precision.
    """
    check_choice("precision", precision, PRECISIONS)
    bfloat16 = precision == "bfloat16" or (precision == "auto" and has_bfloat16(device))
    return torch.bfloat16 if bfloat16 else torch.float32


def keep_freed_memory(size: int = 2**30) -> None:
    """Let this process keep up to ``size`` bytes that it has freed, where the C library is glibc.

    glibc gives the large arrays of a network's layers back to the system one by one, which clears
    each page anew when the next layer asks for it; and of memory that belongs to one thread it
    keeps nothing, so all threads share one arena. A setting of the whole process, so a matter of
    programs, not of functions.
    """
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # M_TRIM_THRESHOLD, ... of malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(trim_threshold, size)
        mallopt(mmap_max, 0)
        mallopt(arena_max, 1)


def return_free_memory() -> None:
    """Give back what the C library keeps of freed memory, where that is glibc; else do nothing.

    A network's activations are freed in pieces that it would rather use again: a tenth of a
    gigabyte, while a photo of many megapixels needs as much.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)


def process_share() -> tuple[int, int]:
    """The number of this process, from 0, and of all that ``torchrun`` or ``accelerate launch``
    has started for the same work, on all machines; (0, 1) without them."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def wait_for_everyone() -> None:
    """Return when all processes of `process_share` have called it.

    A launcher ends the others when one ends with an exit code that is not 0, as it is for a photo
    that cannot be read.
    """
    distributed = torch.distributed
    distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
