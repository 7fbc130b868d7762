"""The operator against pymatting, the definition, and its own algebra."""

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.autograd import forward_ad

from photostyle.ops import ArgumentError, MattingLaplacian
from photostyle.ops.matting import laplacian

EXAMPLES = Path(__file__).parents[2] / "examples"
BACKENDS = ("reference", "cpu")
HEIGHT, WIDTH = 49, 61


def photo(name: str, size=(WIDTH, HEIGHT)) -> torch.Tensor:
    image = Image.open(EXAMPLES / f"{name}.jpg").resize(size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image) / 255).permute(2, 0, 1)[None].contiguous()


def guides() -> dict[str, torch.Tensor]:
    colour = photo("pavilion")
    grey = (colour.mean(1, keepdim=True) * 255).round().div(255).expand(-1, 3, -1, -1)
    return {
        "photo": colour,
        "grey": grey.contiguous(),
        "saturated": ((colour - 0.5) * 2.5 + 0.4).clamp(0, 1),
        "sky": photo("sunset")[..., :40, :].contiguous(),
    }


GUIDES = guides()
EPSILONS = (1e-7, 1e-5)
RADII = (1, 2, 3, 8)

# Relative L2 of L p for random p, and the worst that was measured.
# The reference in float64 against pymatting, which inverts Σ_k itself and loses digits where Σ_k is
# nearly singular; there the definition window by window, below, is the judge.
PYMATTING = {
    ("photo", 1e-7): 1e-10,  # 4.1e-12
    ("photo", 1e-5): 1e-10,  # 4.2e-12
    ("sky", 1e-7): 1e-10,  # 6.9e-12
    ("sky", 1e-5): 1e-10,  # 5.4e-12
    ("saturated", 1e-7): 1e-5,  # 3.6e-6
    ("saturated", 1e-5): 5e-9,  # 4.1e-10
    ("grey", 1e-5): 1e-7,  # 1.6e-8
}
# The CPU path against the float64 reference on the same guide, over all guides, ε and radii.
CPU = {
    ("product", torch.float32): 1e-7,  # 2.6e-8
    ("product", torch.float64): 1e-9,  # 9.0e-11
    ("guided_filter", torch.float32): 2e-6,  # 5.0e-7
    ("guided_filter", torch.float64): 1e-8,  # 1.4e-9
    ("coefficients", torch.float32): 5e-7,  # 1.2e-7
    ("coefficients", torch.float64): 2e-6,  # 3.6e-7, saturated at r = 8
    ("matting_loss", torch.float32): 1e-6,  # 1.1e-7
    ("matting_loss", torch.float64): 1e-10,  # 4.9e-12
}


def random_like(guide: torch.Tensor, channels: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(guide), channels, *guide.shape[2:])
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(guide.dtype)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("radius", [1, 2])
@pytest.mark.parametrize(("name", "epsilon"), PYMATTING)
def test_reference_agrees_with_pymatting(cf_laplacian, name, epsilon, radius):
    guide = GUIDES[name][..., 12:37, 15:46].contiguous()
    p = random_like(guide)
    matrix = cf_laplacian(guide[0].permute(1, 2, 0).numpy(), epsilon, radius)
    expected = torch.from_numpy((matrix @ p[0].flatten(1).T.numpy()).T.copy()).view_as(p)
    actual = MattingLaplacian(guide, radius, epsilon, "reference").product(p)
    assert relative_error(actual, expected) < PYMATTING[name, epsilon]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("name", "epsilon", "radius"), list(itertools.product(GUIDES, EPSILONS, RADII))
)
def test_cpu_agrees_with_reference(name, epsilon, radius, dtype):
    guide = GUIDES[name].to(dtype)
    p = random_like(guide)
    fast = MattingLaplacian(guide, radius, epsilon, "cpu")
    exact = MattingLaplacian(guide.double(), radius, epsilon, "reference")
    for method in ("product", "guided_filter", "coefficients", "matting_loss"):
        actual, expected = getattr(fast, method)(p), getattr(exact, method)(p.double())
        assert actual.dtype == dtype
        assert actual.shape == expected.shape
        assert relative_error(actual, expected) < CPU[method, dtype], method


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("epsilon", "tolerance"), [(1e-3, 1e-9), (1e-7, 1e-6)])
@pytest.mark.parametrize(
    "shape",
    [(1, 3, 3, 3, 1), (2, 3, 5, 11, 2), (3, 1, 17, 6, 1), (1, 3, 40, 3, 1), (2, 1, 19, 23, 4)],
    ids=str,
)
def test_definition_window_by_window(backend, epsilon, tolerance, shape):
    batch, guide_channels, height, width, radius = shape
    generator = torch.Generator().manual_seed(1)
    guide = torch.rand(batch, guide_channels, height, width, generator=generator).double()
    guide = ((guide - 0.5) * 2 + 0.5).clamp(0, 1)  # half of it saturated
    p = random_like(guide, channels=2)
    size = 2 * radius + 1
    expected = torch.zeros_like(p)
    for b, y, x in itertools.product(
        range(batch), range(height - size + 1), range(width - size + 1)
    ):
        window = (..., slice(y, y + size), slice(x, x + size))
        colours = guide[b][window].flatten(1).T
        # min over (a, b) of Σ (p − aᵀI − b)² + ε|a|², as an ordinary least-squares problem.
        ridge = epsilon**0.5 * torch.eye(guide_channels, dtype=torch.float64)
        system = torch.cat([colours, colours.new_ones(size**2, 1)], 1)
        system = torch.cat([system, torch.nn.functional.pad(ridge, (0, 1))])
        values = p[b][window].flatten(1).T
        target = torch.cat([values, values.new_zeros(guide_channels, 2)])
        solution = torch.linalg.lstsq(system, target).solution
        residual = values - system[: size**2] @ solution
        expected[b][window] += residual.T.reshape(2, size, size)
    actual = MattingLaplacian(guide, radius, epsilon, backend).product(p)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", GUIDES)
class TestAlgebra:
    """What Levin et al. prove, at the ε of their system and in the precision of daily use."""

    def operator(self, name, backend, radius=1, epsilon=1e-7):
        return MattingLaplacian(GUIDES[name].float(), radius, epsilon, backend)

    def test_symmetric(self, name, backend):
        operator = self.operator(name, backend)
        p, q = random_like(operator.guide, seed=1), random_like(operator.guide, seed=2)
        left, right = (q * operator.product(p)).sum(), (p * operator.product(q)).sum()
        scale = p.norm() * operator.product(q).norm()
        assert abs(left - right) < 1e-6 * scale

    def test_positive_semidefinite(self, name, backend):
        operator = self.operator(name, backend)
        for p in (random_like(operator.guide), operator.guide, 1 - operator.guide**2):
            assert operator.matting_loss(p).item() >= 0

    def test_constants_and_the_guide_cost_nothing(self, name, backend):
        operator = self.operator(name, backend)
        noise = operator.matting_loss(random_like(operator.guide)).item()
        assert operator.product(torch.full_like(operator.guide, 0.7)).abs().max() < 1e-6
        affine = operator.guide[:, [2, 0, 1]] * 0.4 + 0.1
        assert operator.matting_loss(affine).item() < 1e-6 * noise

    def test_guided_filter_is_the_affine_model(self, name, backend):
        operator = self.operator(name, backend, radius=3, epsilon=1e-3)
        p = random_like(operator.guide)
        model = operator.coefficients(p)
        affine = (model[:, :, :3] * operator.guide[:, None]).sum(2) + model[:, :, 3]
        torch.testing.assert_close(operator.guided_filter(p), affine, rtol=1e-4, atol=1e-5)

    def test_finite(self, name, backend):
        operator = self.operator(name, backend, epsilon=1e-12)
        assert operator.product(random_like(operator.guide)).isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_are_the_windows_of_a_pixel(backend):
    counts = MattingLaplacian(torch.rand(1, 3, 5, 4), backend=backend).counts
    vertical, horizontal = torch.tensor([1, 2, 3, 2, 1]), torch.tensor([1, 2, 2, 1])
    assert counts.dtype == torch.float32
    torch.testing.assert_close(counts, torch.outer(vertical, horizontal).float())


@pytest.mark.parametrize("backend", BACKENDS)
class TestAutograd:
    @pytest.fixture
    def operator(self, backend):
        return MattingLaplacian(GUIDES["photo"][..., 20:29, 20:30], 1, 1e-2, backend)

    @pytest.mark.parametrize("method", ["product", "guided_filter", "matting_loss", "coefficients"])
    def test_first_and_second_order(self, operator, method):
        p = random_like(operator.guide, channels=2).requires_grad_()
        assert torch.autograd.gradcheck(getattr(operator, method), p)
        assert torch.autograd.gradgradcheck(getattr(operator, method), p)

    def test_gradient_of_the_matting_loss_is_twice_the_product(self, operator):
        p = random_like(operator.guide).requires_grad_()
        (gradient,) = torch.autograd.grad(operator.matting_loss(p).sum(), p)
        torch.testing.assert_close(gradient, 2 * operator.product(p.detach()) / p.numel())

    def test_third_order_of_a_cubic(self, operator):
        p = random_like(operator.guide, channels=1).requires_grad_()
        cubic = operator.product(p).pow(3).sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(cubic, p, create_graph=True)
            cubic = gradient.sum()
        assert gradient.isfinite().all()
        # L·1 = 0, and every order of Σ (L p)³ along 1 holds an L·1.
        assert gradient.abs().max() < 1e-6

    def test_no_grad(self, operator):
        p = random_like(operator.guide).requires_grad_()
        with torch.no_grad():
            assert not operator.guided_filter(p).requires_grad


@pytest.mark.parametrize("backend", BACKENDS)
def test_layouts_do_not_matter(backend):
    guide, p = GUIDES["photo"].float(), random_like(GUIDES["photo"].float())
    expected = MattingLaplacian(guide, backend=backend).product(p)
    channels_last = torch.channels_last
    operator = MattingLaplacian(guide.to(memory_format=channels_last), backend=backend)
    assert torch.equal(operator.product(p.to(memory_format=channels_last)), expected)
    wide = torch.zeros(1, 3, HEIGHT, 2 * WIDTH)
    wide[..., ::2] = p
    assert torch.equal(operator.product(wide[..., ::2]), expected)
    flipped = MattingLaplacian(guide.flip(-1), backend=backend).product(p.flip(-1)).flip(-1)
    torch.testing.assert_close(flipped, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_and_channels_are_independent(backend):
    guide = torch.cat([GUIDES["photo"], GUIDES["saturated"]]).float()
    p = random_like(guide, channels=5)
    together = MattingLaplacian(guide, 2, backend=backend).product(p)
    for b, k in itertools.product(range(2), range(5)):
        alone = MattingLaplacian(guide[b : b + 1], 2, backend=backend)
        part = alone.product(p[b : b + 1, k : k + 1])
        torch.testing.assert_close(part[0, 0], together[b, k], rtol=1e-5, atol=1e-5)


def test_the_number_of_threads_changes_nothing_that_matters():
    guide = photo("pavilion", (96, 300)).float()
    p = random_like(guide)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            operator = MattingLaplacian(guide, 2, backend="cpu")
            results.append(operator.product(p))
            assert torch.equal(operator.product(p), results[-1])
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype, backend):
    guide = GUIDES["photo"].to(dtype)
    p = random_like(guide).requires_grad_()
    operator = MattingLaplacian(guide, 2, backend=backend)
    exact = MattingLaplacian(guide.float(), 2, backend=backend)
    for method in ("product", "guided_filter"):
        result = getattr(operator, method)(p)
        assert result.dtype == dtype
        assert torch.equal(result, getattr(exact, method)(p.float()).to(dtype))
    for method in ("matting_loss", "coefficients"):
        assert torch.equal(getattr(operator, method)(p), getattr(exact, method)(p.float()))
    # Beside a guide in float32, too.
    assert torch.equal(exact.product(p), operator.product(p))
    operator.matting_loss(p).sum().backward()
    expected = (2 * exact.product(p.detach().float()) / p.numel()).to(dtype)
    torch.testing.assert_close(p.grad, expected)


# opcheck looks at the .grad of tensors that are no leaves.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_custom_operators_follow_pytorchs_rules():
    guide = GUIDES["photo"][..., :9, :11].float().contiguous()
    operator = MattingLaplacian(guide, backend="cpu")
    p = random_like(guide).requires_grad_()
    statistics = operator._statistics
    for mode in ("PRODUCT", "FIT", "GUIDED_FILTER"):
        torch.library.opcheck(
            torch.ops.photostyle.matting_laplacian,
            (p, guide, statistics, operator.counts, 1, 1e-7, mode),
        )
    torch.library.opcheck(
        torch.ops.photostyle.matting_laplacian_coefficients, (p, guide, statistics, 1, 1e-7)
    )


# PyTorch 2.6 does so itself while it compiles.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.slow
def test_inside_a_compiled_function():
    operator = MattingLaplacian(GUIDES["photo"].float(), backend="cpu")

    def loss(p):
        return operator.matting_loss(operator.guided_filter(torch.sigmoid(p))).sum()

    # One graph or an error; "aot_eager" needs no C++ compiler.
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    gradients = []
    for function in (loss, compiled):
        p = random_like(operator.guide).requires_grad_()
        function(p).backward()
        gradients.append(p.grad)
    torch.testing.assert_close(*gradients)


def test_auto_says_once_what_it_chose(caplog):
    laplacian._log_choice.cache_clear()
    with caplog.at_level(logging.DEBUG, logger=laplacian.__name__):
        backends = [MattingLaplacian(torch.rand(1, 3, 8, 8)).backend for _ in range(3)]
    assert backends == ["cpu"] * 3
    assert caplog.messages == ["matting Laplacian on cpu: backend cpu"]


def test_only_a_slower_choice_is_worth_a_note(caplog):
    laplacian._log_choice.cache_clear()
    with caplog.at_level(logging.INFO, logger=laplacian.__name__):
        laplacian._log_choice("cpu", "cpu", None)
        laplacian._log_choice("cuda", "reference", "no CuPy")
    assert caplog.messages == ["matting Laplacian on cuda: backend reference (no CuPy)"]


class TestBadInput:
    good = torch.rand(1, 3, 8, 9)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"guide": np.zeros((1, 3, 8, 8))}, "guide=ndarray: give a torch.Tensor"),
            ({"guide": torch.rand(3, 8, 8)}, r"guide=\(3, 8, 8\): give \(B, C, H, W\)"),
            ({"guide": torch.rand(0, 3, 8, 8)}, "none of them empty"),
            ({"guide": torch.rand(1, 2, 8, 8)}, "give 1 or 3 channels"),
            (
                {"guide": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)},
                "give float32, float64, float16 or bfloat16",
            ),
            ({"guide": torch.rand(1, 3, 8, 8, requires_grad=True)}, "detach it"),
            ({"radius": 4}, "radius=4: 9x9 windows exceed 8x9"),
            ({"radius": 0}, "radius=0: give a number at least 1"),
            ({"radius": True}, "radius=True: give a whole number of at least 1"),
            ({"radius": 1.5}, "radius=1.5"),
            ({"epsilon": 0}, "epsilon=0: give a number above 0"),
            ({"epsilon": -1.0}, "epsilon=-1.0: give a number at least 0"),
            ({"epsilon": float("nan")}, "epsilon=nan"),
            ({"backend": "gpu"}, "backend=gpu: unknown; choose one of auto, cuda, cpu, reference"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_of_the_operator(self, arguments, message):
        with pytest.raises(ArgumentError, match=message):
            MattingLaplacian(**{"guide": self.good, **arguments})

    @pytest.mark.parametrize("method", ["product", "matting_loss", "guided_filter", "coefficients"])
    @pytest.mark.parametrize(
        ("p", "message"),
        [
            (torch.rand(1, 3, 9, 8), r"p=\(1, 3, 9, 8\): give \(1, K, 8, 9\), as the guide"),
            (torch.rand(2, 3, 8, 9), "as the guide"),
            (torch.rand(3, 8, 9), r"give \(B, C, H, W\)"),
            (torch.rand(1, 3, 8, 9).double(), "p=torch.float64: give torch.float32"),
            (torch.rand(1, 3, 8, 9, device="meta"), "p=meta: move it to cpu"),
        ],
        ids=["size", "batch", "dimensions", "dtype", "device"],
    )
    def test_of_its_methods(self, method, p, message):
        with pytest.raises(ArgumentError, match=message):
            getattr(MattingLaplacian(self.good), method)(p)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
    def test_cuda_without_a_gpu(self):
        with pytest.raises(ArgumentError, match="backend=cuda: PyTorch sees no GPU"):
            MattingLaplacian(self.good, backend="cuda")


# PyTorch's own, when it is first differentiated so.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
class TestForwardMode:
    """Tangents go through the same operator as values."""

    @pytest.mark.parametrize("method", ["product", "guided_filter", "coefficients"])
    @pytest.mark.parametrize("backend", ["cpu", "reference"])
    def test_of_linear_methods(self, method, backend):
        guide, p, tangent = torch.rand(3, 1, 3, 9, 11, dtype=torch.float64)
        function = getattr(MattingLaplacian(guide, 2, 1e-3, backend), method)
        value, found = torch.func.jvp(function, (p,), (tangent,))
        torch.testing.assert_close(value, function(p))
        torch.testing.assert_close(found, function(tangent))

    def test_of_the_loss(self):
        guide, p, tangent = torch.rand(3, 2, 3, 9, 11, dtype=torch.float64)
        laplacian = MattingLaplacian(guide)
        value, found = torch.func.jvp(laplacian.matting_loss, (p,), (tangent,))
        torch.testing.assert_close(value, laplacian.matting_loss(p))
        expected = 2 * (tangent * laplacian.product(p)).flatten(1).sum(1) / p[0].numel()
        torch.testing.assert_close(found, expected)

    def test_beside_the_backward_mode(self):
        guide = torch.rand(1, 3, 7, 8, dtype=torch.float64)
        p = torch.rand_like(guide).requires_grad_(True)
        product = MattingLaplacian(guide).product
        assert torch.autograd.gradcheck(product, (p,), check_forward_ad=True, fast_mode=True)

    @pytest.mark.parametrize("method", ["product", "guided_filter", "matting_loss", "coefficients"])
    def test_of_a_gradient(self, method):
        """Forward over backward gives the Hessian's product with a vector, as backward twice."""
        guide, p, tangent = torch.rand(3, 1, 3, 9, 11, dtype=torch.float64)
        function = getattr(MattingLaplacian(guide, 2, 1e-3), method)
        p.requires_grad_()
        (gradient,) = torch.autograd.grad(function(p**2).square().sum(), p, create_graph=True)
        (expected,) = torch.autograd.grad(gradient, p, tangent)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(p, tangent)
            (gradient,) = torch.autograd.grad(function(dual**2).square().sum(), dual)
            found = forward_ad.unpack_dual(gradient).tangent
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize("method", ["product", "guided_filter", "matting_loss", "coefficients"])
    def test_of_itself_is_refused(self, method):
        guide, p, tangent = torch.rand(3, 1, 3, 9, 11, dtype=torch.float64)
        function = getattr(MattingLaplacian(guide), method)

        def slope(p):
            return torch.func.jvp(lambda p: function(p**2), (p,), (tangent,))[1]

        with pytest.raises(NotImplementedError, match="the matting Laplacian in nested forward mo"):
            torch.func.jvp(slope, (p,), (tangent,))


def test_a_guide_too_small_for_any_window():
    with pytest.raises(ArgumentError, match=r"^guide=\(1, 3, 2, 9\): give at least 3 x 3 pixels"):
        MattingLaplacian.with_ridge(torch.rand(1, 3, 2, 9), 8, 1e-3)
    with pytest.raises(ArgumentError, match=r"^guide=\(12, 13\): give \(B, C, H, W\)"):
        MattingLaplacian.with_ridge(torch.rand(12, 13), 1, 1e-3)
