"""The fast CUDA path of the matting Laplacian: ``kernels.cu`` through CuPy.

CuPy is imported when it is first needed. It compiles the source for the device at hand and keeps
the binary on disk; all memory belongs to PyTorch, and kernels run on PyTorch's current stream.
"""

import functools
import math
from dataclasses import dataclass
from importlib import resources, util
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from photostyle.ops.errors import ArgumentError

THREADS = 96
"""Of a block of the kernels for any radius."""
CHANNELS_AT_ONCE = 3
"""Of p, in one of their blocks: they read the same colours."""
SHARED_MEMORY = 64 * 1024
"""Bytes that a block can have on every GPU, where it must ask for more than 48 KiB."""
LARGEST_RADIUS = 454
"""Beyond it a tile of one window does not fit into them, for a guide of three channels."""
FUSED_STRIP = 30
"""Columns of pixels that a block, one warp, of the kernel for r = 1 computes."""
FUSED_WARPS = 12
"""So many of them a multiprocessor runs at once."""
FUSED_ROWS = 8, 64
"""Of a block's pixels, at least and at most; it computes the windows of two more. Longer strips,
whose neighbours drift apart, took longer on an H100."""

_SCALARS = {torch.float32: "float", torch.float64: "double"}


def _shared_bytes() -> dict[str, tuple[int, int, int]]:
    bytes_of = {}
    for dtype, scalar in _SCALARS.items():
        for channels in (1, 3):
            pairs = channels * (channels + 1) // 2
            template = f"{scalar}, {channels}"
            statistics = (channels + pairs) * torch.float64.itemsize, 0, 0
            bytes_of[f"window_statistics<{template}>"] = statistics
            coefficients, colour = (channels + 1) * dtype.itemsize, channels * dtype.itemsize
            bytes_of[f"window_coefficients<{template}>"] = coefficients, 0, 0
            for mode in ("PRODUCT", "FIT", "GUIDED_FILTER"):
                bytes_of[f"sum_windows<{template}, {mode}>"] = coefficients, colour, dtype.itemsize
            bytes_of[f"sum_windows<{template}, COEFFICIENTS>"] = coefficients, colour, coefficients
    return bytes_of


SHARED_BYTES = _shared_bytes()
"""Of the kernels for any radius: bytes of shared memory for each row and column that a tile reads,
for each of the pixels where its results are, and for each result."""

KERNELS = (
    *SHARED_BYTES,
    *(
        f"fused_radius_1<{guide_channels}, {channels}, {mode}>"
        for guide_channels in (1, 3)
        for channels in (1, 3)
        for mode in ("PRODUCT", "MATTING_LOSS", "FIT", "GUIDED_FILTER")
    ),
)
"""Every instance of the templates in the source, as C++ names it."""


def source() -> str:
    """The CUDA C++ source, which is package data."""
    return resources.files(__package__).joinpath("kernels.cu").read_text("utf-8")


@dataclass(frozen=True)
class Tiling:
    """How a kernel for any radius shares out its results.

    Attributes:
        radius: r.
        channels: that a block works on at once.
        side: of a tile of results. Tiles are parts of cells of 2r x 2r, often whole ones.
        tiles: in a block: of each of its channels, and side by side.
        shared: bytes of shared memory for a block.
    """

    radius: int
    channels: int
    side: int
    tiles: int
    shared: int

    @property
    def arguments(self) -> tuple[int, int, int, int]:
        """As the kernels know it."""
        return self.radius, self.channels, self.side, self.tiles

    def blocks(self, images: int, channels: int, rows: int, columns: int) -> int:
        """How many the results, planes of ``rows`` x ``columns``, need."""
        groups = -(-channels // self.channels)
        across = -(-self._tiles_along(columns) // (self.tiles // self.channels))
        return images * groups * self._tiles_along(rows) * across

    def _tiles_along(self, length: int) -> int:
        cells, rest = divmod(length, 2 * self.radius)
        return cells * -(-2 * self.radius // self.side) + -(-rest // self.side)


@functools.cache
def tiling(kernel: str, radius: int, channels: int = 1) -> Tiling:
    """The largest tiles that fit into shared memory, and as many as keep all threads busy.

    A tile of side s reads s + 2r lines along each axis: at s = 2r everything is read four times,
    whatever the radius; smaller tiles, for large radii, read more.

    Args:
        kernel: one of `SHARED_BYTES`.
        radius: r, at most `LARGEST_RADIUS`.
        channels: of p.
    """
    column_bytes, pixel_bytes, result_bytes = SHARED_BYTES[kernel]

    def shared(side: int, tiles: int, at_once: int) -> int:
        return side * (
            column_bytes * _spread(tiles * (side + 2 * radius))
            + pixel_bytes * _spread(tiles // at_once * side)
            + result_bytes * _spread(tiles * side)
        )

    parts = 1  # of a cell, along each axis
    while shared(side := -(-2 * radius // parts), 1, 1) > SHARED_MEMORY:
        parts += 1
    at_once = min(channels, CHANNELS_AT_ONCE)
    if shared(side, at_once, at_once) > SHARED_MEMORY:
        at_once = 1
    tiles = at_once * max(1, THREADS // (at_once * (side + 2 * radius)))
    while shared(side, tiles, at_once) > SHARED_MEMORY:
        tiles -= at_once
    return Tiling(radius, at_once, side, tiles, shared(side, tiles, at_once))


def _spread(columns: int) -> int:
    """So far rows of so many values are apart in shared memory: twice an odd number."""
    return (columns + 1) & ~1 | 2


def compile_options(threads: int, tiles: Tiling | None = None) -> tuple[str, ...]:
    """What the source needs from the compiler; with ``tiles``, for these only, and faster."""
    options = "--std=c++17", f"-DTHREADS={threads}"
    if tiles is None:
        return options
    return *options, f"-DTILING={','.join(map(str, tiles.arguments))}"


@functools.cache
def fused_geometry(groups: int, height: int, width: int, multiprocessors: int) -> tuple[int, int]:
    """How the kernel for r = 1 shares out ``groups`` of planes of ``height`` x ``width``.

    The GPU runs waves of warps. A wave takes as long as its rows and five more; at the end it waits
    for the slowest warps, a tenth of a warp's time as measured on an H100.

    Args:
        groups: of as many planes as a warp works on at once.
        height, width: of the planes.
        multiprocessors: of the GPU.

    Returns:
        The number of warps, and the rows of each: such that the waves are full and as few as pay.
    """
    strips = groups * -(-width // FUSED_STRIP)
    at_once = multiprocessors * FUSED_WARPS
    fewest, most = FUSED_ROWS

    def cost(rows: int) -> float:
        waves = -(-strips * -(-height // rows) // at_once)
        return waves * (rows + 5) + rows / 10

    chunks = range(-(-height // most), max(1, height // fewest) + 1)
    rows = min((-(-height // number) for number in chunks), key=cost)
    return strips * -(-height // rows), rows


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


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
        Of use to this module only, (B, values): for each image the colours of its pixels, four
        values where C is 3, then for each window its mean minus the colour of a certain pixel in
        it, and the lower triangle of W with WᵀW = (Σ + ε/|w| Id)⁻¹.

    Raises:
        ArgumentError: for a radius beyond `LARGEST_RADIUS`.
    """
    if radius > LARGEST_RADIUS:
        expected = f"give at most {LARGEST_RADIUS} on a GPU, or backend='reference'"
        raise ArgumentError("radius", radius, expected)
    batch, guide_channels, height, width = guide.shape
    windows = height - 2 * radius, width - 2 * radius
    of_pixels = height * width * (1 if guide_channels == 1 else 4)
    of_windows = math.prod(windows) * guide_channels * (guide_channels + 3) // 2
    statistics = guide.new_empty((batch, -(-(of_pixels + of_windows) // 4) * 4))
    colours = statistics[:, :of_pixels].view(batch, height, width, -1)
    colours[..., :guide_channels] = guide.movedim(1, -1)
    colours[..., guide_channels:] = 0
    arguments = guide, statistics, float(epsilon), height, width
    _launch_tiles(_instance("window_statistics", guide), (batch, 1, *windows), radius, arguments)
    return statistics


def has_fused_kernel(guide: Tensor, radius: int) -> bool:
    """Whether `fused_radius_1` is there for this, for all but ``"COEFFICIENTS"``."""
    return radius == 1 and guide.dtype == torch.float32


def fused_radius_1(
    p: Tensor, guide: Tensor, epsilon: float, mode: str
) -> tuple[Tensor, Tensor | None]:
    """L p in an output mode for r = 1 in float32, with no statistics, in one launch.

    Args:
        p: (B, K, H, W), contiguous, on the guide's device.
        guide: (B, C, H, W), contiguous.
        epsilon: ε > 0.
        mode: ``"PRODUCT"``, ``"MATTING_LOSS"``, ``"FIT"`` or ``"GUIDED_FILTER"``.

    Returns:
        It, (B, K, H, W), and for ``"MATTING_LOSS"`` pᵀLp of each image, (B,), float64.
    """
    batch, channels, height, width = p.shape
    per_group = 3 if channels % 3 == 0 else 1
    groups = channels // per_group
    warps, rows = fused_geometry(batch * groups, height, width, _multiprocessors(p.device))
    result = torch.empty_like(p)
    losses = p.new_empty(warps if mode == "MATTING_LOSS" else 0)
    name = f"fused_radius_1<{guide.shape[1]}, {per_group}, {mode}>"
    arguments = guide, p, result, losses, float(epsilon), groups, height, width, rows
    _launch(name, warps, 32, arguments)
    if mode != "MATTING_LOSS":
        return result, None
    return result, losses.view(batch, -1).sum(1, dtype=torch.float64)


def apply(p: Tensor, guide: Tensor, statistics: Tensor, radius: int, mode: str) -> Tensor:
    """L p in an output mode, (B, K, H, W).

    Args:
        p: (B, K, H, W), contiguous, with the guide's dtype and device.
        guide, statistics, radius: see `window_statistics`.
        mode: ``"PRODUCT"``, ``"FIT"``, ``"GUIDED_FILTER"``, or ``"COEFFICIENTS"``: the means of
            a_k (C values) and b_k over the windows that hold a pixel, (B, K, C+1, H, W).
    """
    batch, channels, height, width = p.shape
    windows = height - 2 * radius, width - 2 * radius
    size = channels, height, width
    maps = batch, channels, guide.shape[1] + 1

    coefficients = p.new_empty((batch, channels, *windows, guide.shape[1] + 1))
    arguments = p, statistics, coefficients, *size
    name = _instance("window_coefficients", guide)
    _launch_tiles(name, (batch, channels, *windows), radius, arguments)

    result = p.new_empty((*maps, height, width)) if mode == "COEFFICIENTS" else torch.empty_like(p)
    arguments = p, statistics, coefficients, result, *size
    name = _instance("sum_windows", guide, mode)
    _launch_tiles(name, p.shape, radius, arguments)
    return result


def _instance(template: str, guide: Tensor, *arguments: str) -> str:
    parameters = _SCALARS[guide.dtype], str(guide.shape[1]), *arguments
    return f"{template}<{', '.join(parameters)}>"


def _launch_tiles(
    name: str, results: tuple[int, int, int, int], radius: int, arguments: tuple
) -> None:
    """Run a kernel for any radius, for so many images, channels, rows and columns of results."""
    tiles = tiling(name, radius, results[1])
    _launch(name, tiles.blocks(*results), THREADS, (*arguments, *tiles.arguments), tiles)


def _launch(
    name: str, blocks: int, threads: int, arguments: tuple, tiles: Tiling | None = None
) -> None:
    """Run a kernel on the device and the current stream of its first argument."""
    device = arguments[0].device
    stream = torch.cuda.current_stream(device).cuda_stream
    values = tuple(map(_kernel_argument, arguments))
    shared = tiles.shared if tiles else 0
    with torch.cuda.device(device), _stream(stream, device):
        _kernel(name, tiles, device.index)((blocks,), (threads,), values, shared_mem=shared)


def _kernel_argument(value: Tensor | int | float):
    if isinstance(value, Tensor):
        return value.data_ptr()  # an int, which CuPy passes as 64 bits
    return np.int32(value) if isinstance(value, int) else np.float64(value)


@functools.lru_cache(maxsize=64)
def _stream(handle: int, device: torch.device):
    """A stream of PyTorch's as a CuPy context manager."""
    import cupy

    if hasattr(cupy.cuda.Stream, "from_external"):
        protocol = SimpleNamespace(__cuda_stream__=lambda: (0, handle))  # version 0
        return cupy.cuda.Stream.from_external(protocol)
    return cupy.cuda.ExternalStream(handle, device.index)  # CuPy 13; deprecated by 14


@functools.cache
def _kernel(name: str, tiles: Tiling | None, device_index: int):
    """The kernel on the current device, which is ``device_index``: the key for the cache only.

    Each is compiled when it is first needed, for the tiles at hand, in a second or two, and kept on
    disk.
    """
    import cupy

    module = cupy.RawModule(
        code=source(), options=compile_options(THREADS, tiles), name_expressions=(name,)
    )
    kernel = module.get_function(name)
    if tiles:
        kernel.max_dynamic_shared_size_bytes = tiles.shared
    return kernel
