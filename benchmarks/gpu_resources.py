"""What the compiler gives each CUDA kernel: registers, shared memory, spills; and how many fit.

python -m benchmarks.gpu_resources [--architectures sm_75 ...] [--cubins FOLDER] [--radius 8]

Needs NVRTC, which comes with PyTorch's CUDA build, and no GPU. ``nvdisasm -c FOLDER/sm_90.cubin``
(PyPI: nvidia-cuda-nvdisasm) shows the instructions.
"""

import argparse
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import table
from photostyle.ops.matting import cuda as _cuda

# CUDA C++ programming guide, "Technical specifications per compute capability": what one
# multiprocessor holds of threads, blocks, registers and bytes of shared memory.
LIMITS = {
    "sm_75": (1024, 16, 65536, 65536),
    "sm_80": (2048, 32, 65536, 167936),
    "sm_90": (2048, 32, 65536, 233472),
}
REGISTERS_AT_ONCE = 256  # a warp gets them in multiples of this
SHARED_PER_BLOCK = 1024  # taken by the system, from sm_80 on


@dataclass(frozen=True)
class Resources:
    """Of one kernel: registers per thread, bytes of shared memory per block, bytes spilled."""

    registers: int
    shared: int
    spilled: int


def compile_kernels(
    architecture: str, cubins: Path | None = None, radius: int = 8
) -> tuple[dict[str, Resources], str]:
    """Compile all kernels for an architecture such as ``"sm_90"``.

    Args:
        architecture: one of `LIMITS`.
        cubins: a folder for the machine code: of kernels with tiles of one shape, say
            ``sm_90_8_3_16_3.cubin``, and of those without tiles ``sm_90.cubin``.
        radius: of the kernels for any radius, which are compiled for tiles of one shape.

    Returns:
        The resources of each of `ops.matting.cuda.KERNELS`, and what else the compiler says.

    Raises:
        RuntimeError: it refuses the source; the message is its log.
        ImportError: cuda-bindings or NVRTC is missing.
    """
    together = defaultdict(list)
    for name in _cuda.KERNELS:
        tiles = tiles_of(name, radius)
        together[tiles and tiles.arguments].append(name)
    kernels, messages = {}, []
    for arguments, names in together.items():
        options = _cuda.compile_options(_cuda.THREADS, tiles_of(names[0], radius))
        code, log, symbols = _compile(names, options, architecture)
        if cubins is not None:
            file = "_".join([architecture, *map(str, arguments or ())])
            (cubins / f"{file}.cubin").write_bytes(code)
        kernels |= {name: _resources(log, symbols[name]) for name in names}
        messages += (line for line in log.splitlines() if not line.startswith("ptxas"))
    return kernels, "\n".join(messages)


def tiles_of(kernel: str, radius: int) -> _cuda.Tiling | None:
    """The tiles of a kernel for any radius, for p of three channels; ``None`` of the others."""
    if kernel not in _cuda.SHARED_BYTES:
        return None
    return _cuda.tiling(kernel, radius, 1 if kernel.startswith("window_statistics") else 3)


def _compile(
    names: list[str], options: tuple[str, ...], architecture: str
) -> tuple[bytes, str, dict[str, str]]:
    """The machine code of some kernels, the compiler's log, and the kernels' symbols."""
    from cuda.bindings import nvrtc

    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:
        raise ImportError(f"NVRTC is not installed: {error}") from error

    def check(status, *values):
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise RuntimeError(str(status))
        return values[0] if values else None

    program = check(*nvrtc.nvrtcCreateProgram(_cuda.source().encode(), b"kernels.cu", 0, [], []))
    for name in names:
        check(*nvrtc.nvrtcAddNameExpression(program, name.encode()))
    # Of constants that only kernels need that are left out it would say they are unused.
    own = f"--gpu-architecture={architecture}", "--ptxas-options=-v", "--diag-suppress=177"
    words = [option.encode() for option in (*options, *own)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(words), words)
    # NVRTC writes into it. One byte more than it needs: Python shares bytes of length one.
    buffer = bytes(check(*nvrtc.nvrtcGetProgramLogSize(program)) + 1)
    check(*nvrtc.nvrtcGetProgramLog(program, buffer))
    log = buffer.rstrip(b"\0 \n").decode()
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(log)
    symbols = {
        name: check(*nvrtc.nvrtcGetLoweredName(program, name.encode())).decode() for name in names
    }
    code = bytes(check(*nvrtc.nvrtcGetCUBINSize(program)))
    check(*nvrtc.nvrtcGetCUBIN(program, code))
    check(*nvrtc.nvrtcDestroyProgram(program))
    return code, log, symbols


def _resources(log: str, symbol: str) -> Resources:
    """Of one kernel, from what ptxas prints with -v."""
    _, _, report = log.partition(f"Function properties for {symbol}\n")
    lines = "\n".join(report.splitlines()[:2])
    stores, loads = (int(re.search(rf"(\d+) bytes spill {kind}", lines)[1]) for kind in _SPILLS)
    shared = re.search(r"(\d+) bytes smem", lines)
    registers = int(re.search(r"Used (\d+) registers", lines)[1])
    return Resources(registers, int(shared[1]) if shared else 0, stores + loads)


_SPILLS = ("stores", "loads")


def shared_memory(kernel: str, resources: Resources, radius: int) -> int:
    """Bytes for a block: those of the machine code, and those asked for at the launch."""
    tiles = tiles_of(kernel, radius)
    return resources.shared + (tiles.shared if tiles else 0)


def occupancy(resources: Resources, shared: int, threads: int, architecture: str) -> float:
    """The share of a multiprocessor's threads that blocks of ``threads`` fill, in theory."""
    most_threads, most_blocks, most_registers, most_shared = LIMITS[architecture]
    of_warp = -(-32 * resources.registers // REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
    blocks = min(most_blocks, most_threads // threads, most_registers // of_warp // (threads // 32))
    if shared:
        system = SHARED_PER_BLOCK if architecture != "sm_75" else 0
        blocks = min(blocks, most_shared // (shared + system))
    return blocks * threads / most_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architectures", nargs="+", default=list(LIMITS), choices=LIMITS)
    parser.add_argument("--cubins", type=Path)
    parser.add_argument("--radius", type=int, default=8, help="of the kernels for any radius")
    arguments = parser.parse_args()
    architectures = arguments.architectures
    radius, cubins = arguments.radius, arguments.cubins
    compiled = {name: compile_kernels(name, cubins, radius)[0] for name in architectures}
    rows = []
    for kernel in _cuda.KERNELS:
        threads = 32 if kernel.startswith("fused_radius_1") else _cuda.THREADS
        row = [f"`{kernel}`"]
        for architecture in architectures:
            used = compiled[architecture][kernel]
            shared = shared_memory(kernel, used, radius)
            share = 100 * occupancy(used, shared, threads, architecture)
            row += [used.registers, used.spilled, f"{share:.0f} %"]
        rows.append([*row, shared])
    header = ["kernel"]
    for architecture in architectures:
        header += [f"{architecture}: registers", "spilled", "occupancy"]
    print(table([*header, "shared memory"], rows))


if __name__ == "__main__":
    main()
