"""The CUDA path on a GPU: parity with the reference, and good manners towards PyTorch."""

import gc

import pytest
import torch
from test_cuda_source import BOUNDS, FLOAT64_BOUND, FUSED_BOUNDS, RADII, SIZES, photo

from photostyle.ops import MattingLaplacian

pytestmark = pytest.mark.gpu


def random_image(*shape, seed=0, dtype=torch.float32, device="cuda"):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=dtype, generator=generator).to(device)


def pair(guide, radius=1, epsilon=1e-5):
    """The operator on the GPU, and the reference in float64."""
    fast = MattingLaplacian(guide, radius, epsilon, backend="cuda")
    return fast, MattingLaplacian(guide.double(), radius, epsilon, backend="reference")


def assert_near(actual, expected, bound, case):
    """Relative L2; a failure names the worst element."""
    difference = actual.double() - expected.double()
    error = float(difference.norm() / expected.double().norm())
    worst = torch.unravel_index(difference.abs().argmax(), difference.shape)
    place = tuple(map(int, worst))
    assert error <= bound, f"{case}: {error:.1e}, worst at {place} of {tuple(actual.shape)}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "size", [*SIZES, (67, 301, 1, 2, 3, 3), (131, 257, 8, 1, 3, 5), (90, 270, 40, 1, 3, 2)], ids=str
)
def test_parity(size, dtype):
    height, width, radius, batch, guide_channels, channels = size
    guide = random_image(batch, guide_channels, height, width, dtype=dtype)
    p = random_image(batch, channels, height, width, seed=1, dtype=dtype)
    fast, reference = pair(guide, radius)
    bound = 1e-4 if dtype == torch.float32 else 1e-10
    for method in ("product", "matting_loss", "guided_filter", "coefficients"):
        actual = getattr(fast, method)(p)
        assert actual.dtype == dtype
        assert actual.is_contiguous()
        assert_near(actual, getattr(reference, method)(p.double()), bound, method)
    assert torch.equal(fast.counts.double(), reference.counts.double())


@pytest.mark.parametrize("kind", ["colour", "8-bit sky", "grey", "sepia", "saturated", "stars"])
@pytest.mark.parametrize("epsilon", BOUNDS)
def test_accuracy(kind, epsilon):
    bound, _, _ = BOUNDS[epsilon]
    for radius in RADII:
        guide = torch.tensor(photo(kind), dtype=torch.float32, device="cuda")
        p = random_image(1, 3, *guide.shape[2:])
        fast, reference = pair(guide, radius, epsilon)
        assert_near(fast.product(p), reference.product(p.double()), bound, f"{kind}, r={radius}")
        double = MattingLaplacian(guide.double(), radius, epsilon, backend="cuda")
        expected = reference.product(p.double())
        assert_near(double.product(p.double()), expected, 10 * FLOAT64_BOUND, f"{kind}, r={radius}")


def test_auto_is_cuda():
    assert MattingLaplacian(random_image(1, 3, 9, 9)).backend == "cuda"


@pytest.mark.parametrize("kind", ["colour", "8-bit sky", "grey", "sepia", "saturated", "stars"])
@pytest.mark.parametrize("epsilon", FUSED_BOUNDS)
def test_accuracy_of_fused(kind, epsilon):
    bound, smooth_bound = FUSED_BOUNDS[epsilon]
    guide = torch.tensor(photo(kind, 200, 301), dtype=torch.float32, device="cuda")
    smooth = torch.nn.functional.interpolate(random_image(1, 3, 7, 9), (200, 301), mode="bicubic")
    fast, reference = pair(guide, 1, epsilon)
    for p, limit in ((random_image(1, 3, 200, 301), bound), (smooth, 4 * smooth_bound)):
        assert_near(fast.product(p), reference.product(p.double()), limit, kind)


def test_gradient_of_the_matting_loss():
    fast, reference = pair(random_image(1, 3, 33, 65))
    p = random_image(1, 3, 33, 65, seed=1).requires_grad_()
    fast.matting_loss(p).sum().backward()
    expected = 2 * reference.product(p.detach().double()) / p.numel()
    assert_near(p.grad, expected, 1e-4, "gradient")


def test_non_contiguous_input():
    guide = random_image(1, 40, 64, 3).permute(0, 3, 1, 2)
    p = random_image(1, 80, 64, 6, seed=1).permute(0, 3, 1, 2)[:, ::2, ::2]
    fast, reference = pair(guide)
    assert_near(fast.product(p), reference.product(p.double()), 1e-4, "strided")


@pytest.mark.parametrize("radius", [1, 2])
def test_same_bits_from_run_to_run(radius):
    guide, p = random_image(2, 3, 201, 333), random_image(2, 3, 201, 333, seed=1)
    first, second = (MattingLaplacian(guide, radius, backend="cuda") for _ in range(2))
    methods = "product", "guided_filter", "matting_loss", "coefficients"
    expected = [getattr(first, method)(p) for method in methods]
    for _ in range(5):
        for method, result in zip(methods, expected, strict=True):
            assert torch.equal(getattr(second, method)(p), result), method


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("radius", [1, 3])
def test_half_precision_is_computed_in_float32(radius, dtype):
    guide, p = (random_image(1, 3, 40, 50, seed=seed).to(dtype) for seed in range(2))
    low = MattingLaplacian(guide, radius, 1e-5, backend="cuda")
    exact = MattingLaplacian(guide.float(), radius, 1e-5, backend="cuda")
    assert torch.equal(low.guided_filter(p), exact.guided_filter(p.float()).to(dtype))
    assert torch.equal(low.matting_loss(p), exact.matting_loss(p.float()))


def test_gradients_of_all_forms():
    """The guided filter's is not itself: P is not symmetric."""
    for radius in (1, 3):
        fast, reference = pair(random_image(2, 3, 45, 67), radius)
        p = random_image(2, 3, 45, 67, seed=1).requires_grad_()
        double = p.detach().double().requires_grad_()
        weights = random_image(2, 3, 45, 67, seed=2)
        for method in ("product", "guided_filter"):
            (actual,) = torch.autograd.grad((getattr(fast, method)(p) * weights).sum(), p)
            result = getattr(reference, method)(double)
            (expected,) = torch.autograd.grad((result * weights.double()).sum(), double)
            assert_near(actual, expected, 1e-4, f"{method}, r={radius}")


def test_runs_on_the_current_stream():
    """On another stream the kernels would read p before it is written."""
    guide, fresh = random_image(1, 3, 200, 300), random_image(1, 3, 200, 300, seed=1)
    laplacian = MattingLaplacian(guide, backend="cuda")
    expected = laplacian.product(fresh)
    p, copy = torch.zeros_like(fresh), torch.zeros_like(fresh)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # about a tenth of a second
        p.copy_(fresh)
        product = laplacian.product(p)
        copy.copy_(product)
        assert not stream.query(), "the call waited for the device"
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(product, expected)
    assert torch.equal(copy, expected)


def test_two_streams():
    """Scratch memory is not shared between streams that run at the same time."""
    guide = random_image(1, 3, 300, 500)
    laplacian = MattingLaplacian(guide, 2, backend="cuda")
    inputs = [random_image(1, 3, 300, 500, seed=seed) for seed in range(2)]
    expected = [laplacian.product(p) for p in inputs]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    products = [[], []]
    for _ in range(20):
        for stream, p, results in zip(streams, inputs, products, strict=True):
            with torch.cuda.stream(stream):
                results.append(laplacian.product(p))
    torch.cuda.synchronize()
    for results, result in zip(products, expected, strict=True):
        assert all(torch.equal(product, result) for product in results)


def test_current_device_and_stream_stay():
    device, stream = torch.cuda.current_device(), torch.cuda.current_stream()
    target = f"cuda:{torch.cuda.device_count() - 1}"
    guide, p = (random_image(1, 3, 20, 30, seed=seed, device=target) for seed in range(2))
    fast, reference = pair(guide)
    assert_near(fast.product(p), reference.product(p.double()), 1e-4, target)
    assert torch.cuda.current_device() == device
    assert torch.cuda.current_stream() == stream


def test_memory_returns_to_what_it_was():
    import cupy

    def use():
        laplacian = MattingLaplacian(random_image(1, 3, 256, 256), backend="cuda")
        laplacian.coefficients(laplacian.guided_filter(random_image(1, 3, 256, 256)))

    use()
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        use()
    gc.collect()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == before
    assert cupy.get_default_memory_pool().total_bytes() == 0  # all memory is PyTorch's


@pytest.mark.parametrize("method", ["product", "guided_filter", "matting_loss", "coefficients"])
@pytest.mark.parametrize("radius", [1, 4])
def test_cuda_graph(radius, method):
    apply = getattr(MattingLaplacian(random_image(1, 3, 100, 150), radius, backend="cuda"), method)
    p = random_image(1, 3, 100, 150, seed=1)
    apply(p)  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = apply(p)
    fresh = random_image(1, 3, 100, 150, seed=2)
    p.copy_(fresh)
    graph.replay()
    assert torch.equal(result, apply(fresh))


@pytest.mark.slow
def test_indices_beyond_32_bits():
    """The models of 9 channels of 8192 x 8192 are 2.4e9 values; the last must be right."""
    size, channels, corner = 8192, 9, 64
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GiB of free GPU memory")
    guide = torch.rand(1, 3, size, size, device="cuda")
    p = torch.rand(1, channels, size, size, device="cuda")
    product = MattingLaplacian(guide, backend="cuda").product(p)
    guide, p = (image[..., -corner:, -corner:].clone() for image in (guide, p))
    _, reference = pair(guide, epsilon=1e-7)
    expected = reference.product(p.double())[..., 2:, 2:]
    assert_near(product[..., -corner + 2 :, -corner + 2 :], expected, 1e-4, "corner")
