"""The CUDA kernels without a GPU: NVRTC compiles them, and g++ runs the same text on the CPU.

The second part calls ``ops.matting.cuda`` itself, on CPU tensors and with the launch replaced, so
that the grid, the scratch memory and the arguments are those of the GPU path too.
"""

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu_resources import LIMITS, compile_kernels, occupancy
from photostyle.ops.errors import ArgumentError
from photostyle.ops.matting import cuda as _cuda

TESTS = Path(__file__).parent
EPSILONS = (1e-7, 1e-5)
RADII = (1, 2, 3, 8)
FEW_THREADS = 16


@pytest.mark.parametrize("architecture", LIMITS)
def test_nvrtc_compiles_every_kernel_without_warnings_or_spills(architecture):
    try:
        kernels, messages = compile_kernels(architecture)
    except ImportError as error:
        pytest.skip(str(error))
    assert not messages
    assert set(kernels) == set(_cuda.KERNELS)
    assert {name: used.spilled for name, used in kernels.items() if used.spilled} == {}
    # What the launch bounds promise: twelve warps of r = 1 on a multiprocessor.
    for name, used in kernels.items():
        if name.startswith("fused_radius_1"):
            assert used.shared == 0
            assert occupancy(used, 0, 32, architecture) * LIMITS[architecture][0] >= 12 * 32


class Emulator:
    """The kernels as compiled by g++ for blocks of so many threads, in the place of the GPU; with
    ``tiles`` for these only."""

    def __init__(self, threads, directory, tiles=None):
        compiler = shutil.which("g++")
        if compiler is None:
            pytest.skip("g++ is not installed")
        library = directory / f"kernels_{threads}.so"
        options = _cuda.compile_options(threads, tiles)
        defines = [option for option in options if option.startswith("-D")]
        command = [compiler, "-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror"]
        command += ["-Wno-unknown-pragmas", "-fPIC", "-shared", "-pthread", *defines]
        command += ["-I", Path(_cuda.__file__).parent, TESTS / "cuda_shim.cpp", "-o", library]
        subprocess.run(command, check=True)
        self.library = ctypes.CDLL(library)

    def launch(self, name, blocks, threads, arguments, tiles=None):
        shared = tiles.shared if tiles else 0
        types = {int: ctypes.c_int64, np.int32: ctypes.c_int32, np.float64: ctypes.c_double}
        values = [_cuda._kernel_argument(argument) for argument in arguments]
        values = [types[type(value)](value) for value in values]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        # Not 0: no such kernel, or it wrote beyond the shared memory that it asked for.
        assert self.library.launch_kernel(name.encode(), blocks, threads, shared, pointers) == 0


@pytest.fixture(scope="module")
def emulators(tmp_path_factory):
    """The GPU's blocks, and some so small that all threads have several things to do."""
    directory = tmp_path_factory.mktemp("kernels")
    return {threads: Emulator(threads, directory) for threads in (_cuda.THREADS, FEW_THREADS)}


@pytest.fixture
def emulate(emulators, monkeypatch):
    def use(threads, shared_memory=_cuda.SHARED_MEMORY):
        _cuda.tiling.cache_clear()
        monkeypatch.setattr(_cuda, "THREADS", threads)
        monkeypatch.setattr(_cuda, "SHARED_MEMORY", shared_memory)
        monkeypatch.setattr(_cuda, "_launch", emulators[threads].launch)
        monkeypatch.setattr(_cuda, "_multiprocessors", lambda device: 132)

    use(FEW_THREADS)
    yield use
    _cuda.tiling.cache_clear()


def definition(p, guide, radius, epsilon):
    """He et al. (2010), window by window in float64.

    Returns:
        L p (B, K, H, W), the sum of p_i − a_kᵀ I_i − b_k over the windows k that hold pixel i, and
        (B, K, C+1, H, W), the means of a_k and b_k over them.
    """
    p, guide = np.asarray(p, np.float64), np.asarray(guide, np.float64)
    side = 2 * radius + 1
    colours, values = windows(guide, side), windows(p, side)
    colour_mean, mean = colours.mean(-1, keepdims=True), values.mean(-1, keepdims=True)
    centred = colours - colour_mean
    ridge = epsilon / side**2 * np.eye(guide.shape[1])
    sigma = centred @ centred.mT / side**2 + ridge
    a = np.linalg.solve(sigma, centred @ (values - mean).mT / side**2).mT
    b = mean - a @ colour_mean
    coefficients = np.broadcast_to(
        np.concatenate([a, b], -1)[..., None], (*a.shape[:-1], a.shape[-1] + 1, side**2)
    )
    product = sum_over_windows(values - mean - a @ centred, p.shape[2:])
    counts = sum_over_windows(np.ones((*a.shape[:3], side**2)), p.shape[2:])
    means = sum_over_windows(coefficients, p.shape[2:]) / counts[:, None, None]
    return product, means


def windows(image, side):
    """(B, C, H, W) -> (B, y, x, C, side²), one for each window that is wholly in the image."""
    view = np.lib.stride_tricks.sliding_window_view(image, (side, side), (2, 3))
    return np.moveaxis(view, 1, 3).reshape(len(image), *view.shape[2:4], image.shape[1], -1)


def sum_over_windows(values, shape):
    """(B, y, x, ..., side²) -> (B, ..., H, W): what all windows say of each pixel, added up."""
    values = np.moveaxis(values, (1, 2), (-3, -2))
    total = np.zeros((*values.shape[:-3], *shape))
    height, width = values.shape[-3:-1]
    for position, (y, x) in enumerate(np.ndindex(*[math.isqrt(values.shape[-1])] * 2)):
        total[..., y : y + height, x : x + width] += values[..., position]
    return total


def apply(p, guide, radius, epsilon, modes=("PRODUCT", "COEFFICIENTS")):
    """Forms of L p by the kernels for any radius."""
    statistics = _cuda.window_statistics(guide, radius, epsilon)
    return [_cuda.apply(p, guide, statistics, radius, mode).numpy() for mode in modes]


def relative_error(actual, expected):
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


# Relative L2 errors against the definition in float32, over the photos and radii below, with the
# measured worst in the comments. The fit āᵀI + b̄ is how the coefficients act on the photo: on a
# grey one the ridge alone decides how the slope is shared among its three equal channels.
BOUNDS = {
    # ε: (L p for random p, L p for smooth p, fit)
    1e-7: (2e-5, 5e-5, 1e-5),  # 1.1e-5, 1.2e-5, 2.9e-6
    1e-5: (5e-6, 2e-5, 5e-6),  # 3.3e-6, 5.5e-6, 1.9e-6
}
FUSED_BOUNDS = {
    # ε, in one launch: (L p for random p, L p for smooth p)
    1e-7: (1e-5, 2e-5),  # 5.3e-6, 1.5e-5
    1e-5: (2e-6, 1e-5),  # 1.1e-6, 6.0e-6
}
FLOAT64_BOUND = 1e-10  # 1.7e-11, of all these
COEFFICIENT_BOUND = {torch.float32: 2e-4, torch.float64: 1e-10}  # 1.1e-4, 1.8e-11; without grey


def smooth_field(random, channels, height, width):
    """(channels, H, W), a few waves longer than a dozen pixels; values in [-1, 1]."""
    y, x = np.mgrid[:height, :width] / 32
    field = np.zeros((channels, height, width))
    for channel in field:
        for _ in range(6):
            fy, fx, phase = (
                random.uniform(-1, 1),
                random.uniform(-1, 1),
                random.uniform(0, 2 * np.pi),
            )
            channel += np.sin(2 * np.pi * (fy * y + fx * x) + phase) / 6
    return field


def quantise(photo):
    return np.round(np.clip(photo, 0, 1) * 255) / 255


def photo(kind, height=32, width=40):
    """(1, 3, H, W): photos that are hard on the arithmetic, each in its way."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    field = 0.5 + 0.45 * smooth_field(random, 3, height, width)
    grey = field[:1]
    noise = random.normal(0, 0.001, field.shape)
    sky = np.stack([0.45 + 0.15 * y / height, 0.6 + 0.1 * y / height, 0.9 - 0.05 * x / width])
    stars = np.where((y % 9 == 0) & (x % 9 == 0), 1.0, 0.02 + noise)
    photos = {
        "colour": field,
        "8-bit sky": quantise(sky),
        "grey": quantise(np.repeat(grey, 3, 0)),
        "sepia": quantise(np.concatenate([0.98 * grey, 0.9 * grey + 0.02, 0.8 * grey + 0.05])),
        "saturated": np.clip(3 * field - 1, 0, 1),
        "stars": stars,
    }
    return photos[kind][None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", ["colour", "8-bit sky", "grey", "sepia", "saturated", "stars"])
def test_accuracy(emulate, kind, dtype):
    random = np.random.default_rng(1)
    guide = torch.tensor(photo(kind), dtype=dtype)
    height, width = guide.shape[2:]
    noise = random.uniform(size=(1, height, width))
    smooth = 0.5 + 0.4 * smooth_field(random, 1, height, width)
    p = torch.tensor(np.stack([noise, smooth], 1), dtype=dtype)
    homogeneous = np.concatenate([guide, torch.ones_like(guide[:, :1])], 1)[:, None].astype(float)

    for radius in RADII:
        for epsilon in EPSILONS:
            product, means = apply(p, guide, radius, epsilon)
            expected, expected_means = definition(p, guide, radius, epsilon)
            bounds = BOUNDS[epsilon] if dtype == torch.float32 else (FLOAT64_BOUND,) * 3
            errors = (
                relative_error(product[:, 0], expected[:, 0]),
                relative_error(product[:, 1], expected[:, 1]),
                relative_error((means * homogeneous).sum(2), (expected_means * homogeneous).sum(2)),
            )
            assert np.all(np.less_equal(errors, bounds)), (radius, epsilon, errors)
            if kind != "grey":
                error = relative_error(means, expected_means)
                assert error <= COEFFICIENT_BOUND[dtype], (radius, epsilon, error)
            if _cuda.has_fused_kernel(guide, radius):
                product = _cuda.fused_radius_1(p, guide, epsilon, "PRODUCT")[0].numpy()
                errors = [relative_error(product[:, i], expected[:, i]) for i in range(2)]
                assert np.all(np.less_equal(errors, FUSED_BOUNDS[epsilon])), (epsilon, errors)


# Height, width, radius; images, channels of the guide, channels of p. A tile has 2r x 2r results,
# and a block of 16 threads several tiles only for radius 1 and 2.
SIZES = [
    (3, 3, 1, 1, 3, 1),  # a single window
    (5, 7, 1, 2, 3, 3),
    (7, 5, 2, 1, 1, 5),
    (3, 50, 1, 1, 3, 1),  # one row of windows, many strips
    (50, 3, 1, 1, 1, 1),
    (8, 33, 1, 1, 3, 3),  # several strips, the last one not full
    (9, 41, 3, 2, 3, 5),
    (23, 37, 4, 1, 3, 1),
    (12, 29, 5, 1, 3, 3),
    (17, 17, 8, 1, 1, 1),
    (19, 60, 8, 2, 3, 3),
    (21, 80, 10, 1, 3, 1),
]


def assert_definition(p, guide, radius):
    tolerance = 1e-4 if p.dtype == torch.float32 else 1e-10  # a mistake in an index is of order 1
    for actual, expected in zip(
        apply(p, guide, radius, 1e-5), definition(p, guide, radius, 1e-5), strict=True
    ):
        assert actual.shape == expected.shape
        error = relative_error(actual, expected)
        assert error < tolerance, (*p.shape, radius, error)


def random_pair(height, width, batch, guide_channels, channels, dtype=torch.float32):
    random = torch.Generator().manual_seed(height)
    guide = torch.rand(batch, guide_channels, height, width, dtype=dtype, generator=random)
    return torch.rand(batch, channels, height, width, dtype=dtype, generator=random), guide


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("threads", [FEW_THREADS, _cuda.THREADS])
def test_sizes(emulate, threads, dtype):
    emulate(threads)
    sizes = SIZES if threads == FEW_THREADS else [(5, 7, 1, 2, 3, 3), (9, 141, 3, 1, 1, 2)]
    for height, width, radius, *channels in sizes:
        p, guide = random_pair(height, width, *channels, dtype)
        assert_definition(p, guide, radius)


@pytest.mark.parametrize("shared_memory", [72 * 10, 72 * 20, 72 * 60])
def test_less_shared_memory_makes_smaller_tiles(emulate, shared_memory):
    emulate(FEW_THREADS, shared_memory)
    assert _cuda.tiling("window_statistics<float, 3>", 3).side < 6
    assert_definition(*random_pair(19, 23, 1, 3, 2), 3)


def test_tiles_that_the_compiler_knows(emulate, monkeypatch, tmp_path):
    """As on a GPU. Another size in the arguments is not used."""
    p, guide = random_pair(20, 30, 2, 3, 3)
    statistics = _cuda.window_statistics(guide, 3, 1e-5)
    modes = "PRODUCT", "FIT", "GUIDED_FILTER", "COEFFICIENTS"
    expected = [_cuda.apply(p, guide, statistics, 3, mode) for mode in modes]

    tiles = _cuda.tiling("window_coefficients<float, 3>", 3, 3)
    emulator = Emulator(FEW_THREADS, tmp_path, tiles)

    def launch(name, blocks, threads, arguments, given):
        assert given.arguments == tiles.arguments
        emulator.launch(name, blocks, threads, (*arguments[:-4], 0, 0, 0, 0), given)

    monkeypatch.setattr(_cuda, "_launch", launch)
    for mode, result in zip(modes, expected, strict=True):
        assert torch.equal(_cuda.apply(p, guide, statistics, 3, mode), result), mode


def assert_forms(product, fit, guided_filter, p, expected, radius):
    """F p = D p − L p and P p = F p / D; a mistake in an index is of order 1."""
    single = p.dtype == torch.float32
    counts = definition_counts(*p.shape[2:], radius)
    expected_fit = counts * np.asarray(p, np.float64) - expected
    assert relative_error(product, expected) < (1e-4 if single else 1e-10)
    assert relative_error(fit, expected_fit) < (1e-5 if single else 1e-12)
    assert relative_error(guided_filter, expected_fit / counts) < (1e-5 if single else 1e-12)


def definition_counts(height, width, radius):
    counts = np.zeros((height, width))
    for y, x in np.ndindex(height - 2 * radius, width - 2 * radius):
        counts[y : y + 2 * radius + 1, x : x + 2 * radius + 1] += 1
    return counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_forms(emulate, dtype):
    for height, width, radius, batch, guide_channels, channels in SIZES[::2]:
        p, guide = random_pair(height, width, batch, guide_channels, channels, dtype)
        expected, _ = definition(p, guide, radius, 1e-5)
        results = apply(p, guide, radius, 1e-5, ("PRODUCT", "FIT", "GUIDED_FILTER"))
        assert_forms(*results, p, expected, radius)


# As SIZES, r = 1. A warp has 30 columns of pixels, and in small images 8 rows.
ONE_LAUNCH_SIZES = [
    (3, 3, 1, 3, 1),
    (3, 70, 1, 1, 1),
    (70, 3, 1, 3, 3),
    (8, 30, 2, 3, 3),
    (9, 31, 1, 1, 3),  # one row and one column beyond
    (16, 60, 1, 3, 2),
    (17, 61, 2, 3, 6),  # two groups of three channels
    (23, 89, 1, 3, 1),
]


@pytest.mark.parametrize("size", ONE_LAUNCH_SIZES, ids=str)
def test_fused(emulate, size):
    height, width, batch, guide_channels, channels = size
    p, guide = random_pair(height, width, batch, guide_channels, channels)
    expected, _ = definition(p, guide, 1, 1e-5)
    assert _cuda.has_fused_kernel(guide, 1)
    results = [
        _cuda.fused_radius_1(p, guide, 1e-5, mode)[0].numpy()
        for mode in ("PRODUCT", "FIT", "GUIDED_FILTER")
    ]
    assert_forms(*results, p, expected, 1)
    product, loss = _cuda.fused_radius_1(p, guide, 1e-5, "MATTING_LOSS")
    assert np.array_equal(product, results[0])
    # Partial sums in float32.
    expected = (p.double() * torch.as_tensor(expected)).flatten(1).sum(1)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)


def test_fused_properties(emulate):
    guide = torch.tensor(photo("8-bit sky"), dtype=torch.float32)
    constant = torch.full_like(guide, 0.3)
    product, loss = _cuda.fused_radius_1(constant, guide, 1e-7, "MATTING_LOSS")
    assert not product.any()
    assert not loss.any()
    assert torch.equal(_cuda.fused_radius_1(constant, guide, 1e-7, "GUIDED_FILTER")[0], constant)
    # Nothing to divide by in a flat photo but a tiny ε.
    flat = torch.full((1, 3, 9, 9), 0.7)
    flat[..., 4:] = 0.1
    for epsilon in (1e-20, 1e-60):
        assert (
            _cuda.fused_radius_1(torch.rand(1, 1, 9, 9), flat, epsilon, "PRODUCT")[0]
            .isfinite()
            .all()
        )


def test_where_one_launch_is_enough():
    with torch.device("meta"):
        assert _cuda.has_fused_kernel(torch.empty(1, 3, 27_000, 27_000), 1)
        assert not _cuda.has_fused_kernel(torch.empty(1, 3, 9, 9), 2)
        assert not _cuda.has_fused_kernel(torch.empty(1, 3, 9, 9, dtype=torch.float64), 1)


@pytest.mark.parametrize("multiprocessors", [1, 132])
@pytest.mark.parametrize("groups", [1, 16, 1000])
def test_warps_of_fused_cover_the_image(groups, multiprocessors):
    for height, width in ((3, 3), (100, 150), (603, 904), (4096, 4096), (8192, 8192)):
        warps, rows = _cuda.fused_geometry(groups, height, width, multiprocessors)
        strips = -(-width // _cuda.FUSED_STRIP)
        assert warps % (groups * strips) == 0
        chunks = warps // (groups * strips)
        assert (chunks - 1) * rows < height <= chunks * rows
        assert warps < 2**31
        assert min(8, height) <= rows <= height


@pytest.mark.parametrize("epsilon", EPSILONS)
@pytest.mark.parametrize("kind", ["colour", "grey"])
@pytest.mark.parametrize("launches", [1, 3])
def test_symmetric_and_positive(emulate, kind, epsilon, launches):
    guide = torch.tensor(photo(kind), dtype=torch.float32)
    p = torch.rand(1, 2, *guide.shape[2:], generator=torch.Generator().manual_seed(0))
    statistics = _cuda.window_statistics(guide, 1, epsilon)

    def apply_l(p):
        if launches == 1:
            return _cuda.fused_radius_1(p, guide, epsilon, "PRODUCT")[0]
        return _cuda.apply(p, guide, statistics, 1, "PRODUCT")

    product = apply_l(p)[0].double()
    assert product.isfinite().all()
    modes = torch.einsum("ihw,jhw->ij", p[0].double(), product)
    assert abs(modes[0, 1] - modes[1, 0]) < 1e-6 * modes.diagonal().min()
    assert (modes.diagonal() > 0).all()

    # What is affine in the guide costs nothing.
    affine = (0.2 + 0.5 * guide[:, :1]).contiguous()
    cost = (affine * apply_l(affine)).double().sum()
    assert abs(cost) < 1e-3 * modes.diagonal().min()


def test_constant_gives_exactly_zero(emulate):
    guide = torch.tensor(photo("colour"), dtype=torch.float32)
    p = torch.full_like(guide, 0.3)
    product, means = apply(p, guide, 2, 1e-7)
    assert not product.any()
    assert not means[:, :, :3].any()
    assert (means[:, :, 3] == np.float32(0.3)).all()


def test_tiny_epsilon_stays_finite(emulate):
    guide = torch.full((1, 3, 9, 9), 0.7)
    guide[..., 4:] = 0.1
    product, means = apply(torch.rand(1, 1, 9, 9), guide, 1, 1e-20)
    assert np.isfinite(product).all()
    assert np.isfinite(means).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
@pytest.mark.parametrize("kernel", _cuda.SHARED_BYTES)
@pytest.mark.parametrize("radius", [1, 2, 4, 8, 16, 40, 100, _cuda.LARGEST_RADIUS])
def test_tiles_fit_and_blocks_cover_the_results(kernel, radius, channels):
    tiles = _cuda.tiling(kernel, radius, channels)
    assert 1 <= tiles.side <= 2 * radius
    if radius <= 8 and "float" in kernel:  # what a tile reads does not depend on the radius
        assert tiles.side == 2 * radius
    assert 1 <= tiles.channels <= channels
    assert tiles.tiles >= tiles.channels
    assert tiles.tiles % tiles.channels == 0
    assert tiles.shared <= _cuda.SHARED_MEMORY
    width = tiles.side * tiles.tiles // tiles.channels
    groups = -(-channels // tiles.channels)
    for rows, columns in ((1, 1), (tiles.side, width), (tiles.side + 1, width + 1)):
        down, across = 1 + (rows > tiles.side), 1 + (columns > width)
        assert tiles.blocks(6, channels, rows, columns) == 6 * groups * down * across


def test_radius_beyond_shared_memory_is_refused():
    guide = torch.rand(1, 1, 1000, 1000)
    with pytest.raises(ArgumentError, match=r"^radius=455: give at most 454 on a GPU, or backend"):
        _cuda.window_statistics(guide, _cuda.LARGEST_RADIUS + 1, 1e-5)


def test_large_images_stay_within_the_grid_limits():
    for kernel in _cuda.SHARED_BYTES:
        for height, width in ((8192, 8192), (1_000_000, 3), (3, 1_000_000)):
            assert _cuda.tiling(kernel, 1).blocks(64, 3, height, width) < 2**31
