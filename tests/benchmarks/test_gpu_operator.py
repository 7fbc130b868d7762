"""What the operator is measured beside computes the same."""

import pytest
import torch

from benchmarks.explicit_matrix import laplacian_csr
from benchmarks.gpu_operator import box_guided_filter, compared
from photostyle.ops import MattingLaplacian


def random_image(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("strip_pixels", [1, 30, 10**6])
@pytest.mark.parametrize("size", [(3, 3), (3, 12), (11, 3), (13, 10)], ids=str)
def test_explicit_matrix(size, strip_pixels):
    """Measured: 3e-7."""
    guide, p = random_image(1, 3, *size), random_image(1, 2, *size, seed=1)
    pixels = size[0] * size[1]
    matrix = torch.sparse_csr_tensor(
        *laplacian_csr(guide, 1e-5, strip_pixels), (pixels, pixels), check_invariants=True
    )
    product = (matrix @ p[0].flatten(1).T).T.reshape(p.shape)
    expected = MattingLaplacian(guide.double(), 1, 1e-5, "reference").product(p.double())
    assert (product - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize("radius", [1, 3, 8])
def test_box_guided_filter(radius):
    """Further in than two radii no window leaves the image. Measured: 1e-6."""
    guide, p = random_image(2, 3, 50, 60), random_image(2, 2, 50, 60, seed=1)
    expected = MattingLaplacian.with_ridge(guide.double(), radius, 1e-3, "reference")
    expected = expected.guided_filter(p.double())
    difference = box_guided_filter(guide, p, radius, 1e-3) - expected
    inner = (..., *(slice(2 * radius, -2 * radius),) * 2)
    assert difference[inner].abs().max() < 1e-5


def test_compared():
    """A peer that does not fit is named; any other error is a defect."""
    ones = torch.ones(4)

    def too_large():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    rows = compared("4", lambda: ones, {"twice": lambda: lambda: 2 * ones, "huge": too_large})
    assert [row[1] for row in rows] == ["this operator", "twice", "huge"]
    assert rows[1][4] == "1.0e+00"
    assert rows[2][2:] == ["does not fit", "-", "-"]
    with pytest.raises(ZeroDivisionError):
        compared("4", lambda: ones, {"broken": lambda: 1 / 0})
