"""The fast CUDA path of the matting Laplacian: ``matting_laplacian.cu`` through CuPy.

CuPy is imported when it is first needed. It compiles the source for the device at hand and keeps
the binary on disk; all memory belongs to PyTorch, and kernels run on PyTorch's current stream.
"""

import functools
from importlib import resources, util
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

BLOCK = (128, 2)
"""Columns and rows of a thread block. Two rows share most of what they read; wide rows keep the
2r columns that neighbouring blocks both read few."""
RADIUS_1_STRIP = 30
"""Columns of pixels that a block, one warp, of the kernel for r = 1 computes."""
RADIUS_1_ROWS = 8, 128
"""It computes so many rows, and for them the windows of two more."""
RADIUS_1_BUSY = 4096
"""Warps beyond which more of them do not fill a GPU better: an H100 runs 1584 of them at once."""

_SCALARS = {torch.float32: "float", torch.float64: "double"}

KERNELS = tuple(
    name
    for scalar in _SCALARS.values()
    for guide_channels in (1, 3)
    for name in (
        f"window_statistics<{scalar}, {guide_channels}>",
        f"window_models<{scalar}, {guide_channels}>",
        *(
            f"sum_windows<{scalar}, {guide_channels}, {form}>"
            for form in ("PRODUCT", "FIT", "PROJECTION", "MEANS")
        ),
    )
) + tuple(
    f"radius_1<{guide_channels}, {channels}, {form}>"
    for guide_channels in (1, 3)
    for channels in (1, 3)
    for form in ("PRODUCT", "ENERGY", "FIT", "PROJECTION")
)
"""Every instance of the templates in the source, as C++ names it."""


def source() -> str:
    """The CUDA C++ source, which is package data."""
    return resources.files(__package__).joinpath("matting_laplacian.cu").read_text("utf-8")


def compile_options(block: tuple[int, int]) -> tuple[str, ...]:
    """What the source needs from the compiler."""
    return (
        "--std=c++17",
        f"-DBLOCK_COLUMNS={block[0]}",
        f"-DBLOCK_ROWS={block[1]}",
    )


def launch_geometry(
    planes: int, rows: int, columns: int, radius: int, block: tuple[int, int]
) -> tuple[tuple[int, int], int]:
    """The grid for a result of ``planes`` planes of ``rows`` x ``columns``.

    Returns:
        The grid, (planes x groups of rows, strips), and the columns in a strip. A block needs 2r
        columns more than its strip has. While they are few, the strip is narrowed so that each
        thread sums one column; beyond that the strip is as wide as the block, which takes its
        columns in pieces. The long axis comes first: the second of a CUDA grid ends at 65535.
    """
    block_columns, block_rows = block
    strip = block_columns - 2 * radius if 4 * radius <= block_columns else block_columns
    return (planes * -(-rows // block_rows), -(-columns // strip)), strip


def radius_1_geometry(groups: int, height: int, width: int) -> tuple[int, int]:
    """How the kernel for r = 1 shares out ``groups`` of planes of ``height`` x ``width``.

    Returns:
        The number of warps, and the rows of each: many, unless the GPU would stand idle.
    """
    strips = -(-width // RADIUS_1_STRIP)
    fewest, most = RADIUS_1_ROWS
    rows = max(fewest, min(most, groups * strips * height // RADIUS_1_BUSY))
    return groups * strips * -(-height // rows), rows


@functools.cache
def availability() -> str | None:
    """``None`` where this path can run, otherwise the reason why it cannot."""
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    if torch.version.cuda is None:
        return "this PyTorch is not a CUDA build"
    if util.find_spec("cupy") is None:
        extra = f"cuda{torch.version.cuda.split('.')[0]}"
        return f"CuPy is not installed (pip install 'photostyle[{extra}]')"
    return None


def window_statistics(guide: Tensor, radius: int, epsilon: float) -> Tensor:
    """What the windows of a guide contribute to every product with its matting Laplacian.

    Args:
        guide: (B, C, H, W) on a CUDA device, C 1 or 3, float32 or float64, contiguous.
        radius: r >= 1 with 2r + 1 <= min(H, W).
        epsilon: ε > 0; ε / (2r + 1)² is added to the diagonal of each covariance.

    Returns:
        (B, C + C(C+1)/2, H - 2r, W - 2r), of use to this module only: per window the mean minus the
        colour of the centre pixel, then the lower triangle of W with WᵀW = (Σ + ε/|w| Id)⁻¹.
    """
    batch, guide_channels, height, width = guide.shape
    windows = height - 2 * radius, width - 2 * radius
    values = guide_channels + guide_channels * (guide_channels + 1) // 2
    statistics = guide.new_empty((batch, values, *windows))
    grid, strip = launch_geometry(batch, *windows, radius, BLOCK)
    name = _instance("window_statistics", guide)
    arguments = guide, statistics, float(epsilon), height, width, radius, strip
    _launch(name, grid, BLOCK, arguments)
    return statistics


def is_one_launch(guide: Tensor, radius: int) -> bool:
    """Whether :func:`radius_1` is there for this, for all but ``"MEANS"``."""
    height, width = guide.shape[2:]
    return radius == 1 and guide.dtype == torch.float32 and 3 * height * width < 2**31


def radius_1(p: Tensor, guide: Tensor, epsilon: float, form: str) -> tuple[Tensor, Tensor | None]:
    """A form of L p for r = 1 in float32, with no statistics, in one launch.

    Args:
        p: (B, K, H, W), contiguous, on the guide's device.
        guide: (B, C, H, W), contiguous.
        epsilon: ε > 0.
        form: ``"PRODUCT"``, ``"ENERGY"``, ``"FIT"`` or ``"PROJECTION"``.

    Returns:
        The form, (B, K, H, W), and for ``"ENERGY"`` pᵀLp of each image, (B,), float64.
    """
    batch, channels, height, width = p.shape
    per_group = 3 if channels % 3 == 0 else 1
    groups = channels // per_group
    warps, rows = radius_1_geometry(batch * groups, height, width)
    result = torch.empty_like(p)
    energies = p.new_empty(warps if form == "ENERGY" else 0)
    name = f"radius_1<{guide.shape[1]}, {per_group}, {form}>"
    arguments = guide, p, result, energies, float(epsilon), groups, height, width, rows
    _launch(name, (warps, 1), (32, 1), arguments)
    if form != "ENERGY":
        return result, None
    return result, energies.view(batch, -1).sum(1, dtype=torch.float64)


def apply(p: Tensor, guide: Tensor, statistics: Tensor, radius: int, form: str) -> Tensor:
    """A form of L p, (B, K, H, W).

    Args:
        p: (B, K, H, W), contiguous, with the guide's dtype and device.
        guide, statistics, radius: see :func:`window_statistics`.
        form: ``"PRODUCT"``, ``"FIT"``, ``"PROJECTION"``, or ``"MEANS"``: the means of a_k (C
            values) and b_k over the windows that hold a pixel, (B, K, C+1, H, W).
    """
    batch, channels, height, width = p.shape
    windows = height - 2 * radius, width - 2 * radius
    size = channels, height, width, radius
    maps = batch, channels, guide.shape[1] + 1

    models = p.new_empty((*maps, *windows))
    grid, strip = launch_geometry(batch * channels, *windows, radius, BLOCK)
    arguments = p, guide, statistics, models, *size, strip
    _launch(_instance("window_models", guide), grid, BLOCK, arguments)

    result = p.new_empty((*maps, height, width)) if form == "MEANS" else torch.empty_like(p)
    grid, strip = launch_geometry(batch * channels, height, width, radius, BLOCK)
    arguments = p, guide, models, result, *size, strip
    _launch(_instance("sum_windows", guide, form), grid, BLOCK, arguments)
    return result


def _instance(template: str, guide: Tensor, *arguments: str) -> str:
    parameters = _SCALARS[guide.dtype], str(guide.shape[1]), *arguments
    return f"{template}<{', '.join(parameters)}>"


def _launch(name: str, grid: tuple[int, int], block: tuple[int, int], arguments: tuple) -> None:
    """Run a kernel on the device and the current stream of its first argument."""
    device = arguments[0].device
    with torch.cuda.device(device), _current_stream(device):
        _kernel(name, device.index)(grid, block, tuple(map(_kernel_argument, arguments)))


def _kernel_argument(value: Tensor | int | float):
    if isinstance(value, Tensor):
        return value.data_ptr()  # an int, which CuPy passes as 64 bits
    return np.int32(value) if isinstance(value, int) else np.float64(value)


def _current_stream(device: torch.device):
    """PyTorch's current stream as a CuPy context manager."""
    import cupy

    handle = torch.cuda.current_stream(device).cuda_stream
    if hasattr(cupy.cuda.Stream, "from_external"):
        protocol = SimpleNamespace(__cuda_stream__=lambda: (0, handle))  # version 0
        return cupy.cuda.Stream.from_external(protocol)
    return cupy.cuda.ExternalStream(handle, device.index)  # CuPy 13; deprecated by 14


@functools.cache
def _kernel(name: str, device_index: int):
    """The kernel on the current device, which is ``device_index``: the key for the cache only.

    CuPy compiles the module once per device, whichever kernel is asked for first.
    """
    return _module().get_function(name)


@functools.cache
def _module():
    import cupy

    return cupy.RawModule(code=source(), options=compile_options(BLOCK), name_expressions=KERNELS)
