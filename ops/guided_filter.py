"""Photorealism by construction: any image made locally affine in a photo."""

from dataclasses import dataclass

from torch import Tensor

from photostyle.ops.errors import check_choice, check_positive, check_whole
from photostyle.ops.matting.laplacian import BACKENDS, MattingLaplacian


@dataclass(frozen=True)
class GuidedFilter:
    """The guided filter that makes an image locally affine in the content.

    Attributes:
        radius: of its windows, at every scale.
        ridge: ε/|w|, added to the windows' colour variances: the guided filter's own ε.
        backend: of the matting Laplacian.
    """

    radius: int = 8
    ridge: float = 1e-3
    backend: str = "auto"

    def __post_init__(self):
        check_whole("radius", self.radius, 1)
        check_choice("backend", self.backend, BACKENDS)
        check_positive("ridge", self.ridge)

    def laplacian(self, guide: Tensor) -> MattingLaplacian:
        """The guide's matting Laplacian; small images get the largest radius that fits."""
        return MattingLaplacian.with_ridge(guide, self.radius, self.ridge, self.backend)
