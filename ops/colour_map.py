"""The smooth map of a photo's colours that comes nearest to an image.

A change that depends on nothing but a pixel's colour, as that of a curve or of a 3D lookup table,
makes no haze, glow or patch. The map is a table of 9 x 9 x 9 colours over the photo's RGB,
interpolated trilinearly, see `ops.lattice`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from photostyle.ops.checks import check_mask_shape
from photostyle.ops.colour_transfer import colour_maps
from photostyle.ops.errors import ArgumentError
from photostyle.ops.gram import whole_mask
from photostyle.ops.lattice import SIZE, lattice
from photostyle.ops.transport import moments


class NearestColourMap:
    """S r: the smooth map of a photo's colours nearest to an image r, under each mask.

    With W the trilinear weights of N pixels' colours and M_m the diagonal matrix of a mask,

        t_m = argmin (W t − r)ᵀ M_m (W t − r) + λ N_m/9³ ‖D t‖² + 1e-6 N_m ‖t‖²,  N_m = tr M_m
        S r = Σ_m M_m W t_m

    where D are second differences along the three axes of the table: lattice regression, Garcia
    and Gupta (2009). S is linear and, where all pixels count alike, symmetric: its gradient is S
    itself. Each photo of a batch has a map of its own.

    Args:
        photo: (B, 3, H, W), float32 or float64, values in [0, 1]. S is computed on its device, and
            what it gives is in its dtype; tables are found in float64. Images are to have both.
        masks: (M, H, W), values in [0, 1], sum 1 at every pixel, none of them empty; ``None``: one,
            everywhere.
        pixel_weights: how much each pixel counts, Ω, (H, W) in [0, 1]: M_m Ω in the place of M_m in
            t_m. ``None``: all alike.

    Raises:
        ArgumentError: for shapes or a dtype other than these, and for an image that does not fit
            the photo.
    """

    def __init__(
        self, photo: Tensor, masks: Tensor | None = None, pixel_weights: Tensor | None = None
    ):
        if photo.dim() != 4 or photo.shape[1] != 3:
            raise ArgumentError("photo", tuple(photo.shape), "give (B, 3, H, W)")
        if photo.dtype not in (torch.float32, torch.float64):
            raise ArgumentError("photo", photo.dtype, "give float32 or float64")
        if masks is None:
            masks = whole_mask(photo)
        check_mask_shape("masks", masks, photo)
        if pixel_weights is not None:
            check_mask_shape("pixel_weights", pixel_weights[None], photo)
        self.shape, self.dtype = photo.shape, photo.dtype
        self.lattice = lattice(photo)
        self.masks = masks.to(photo)
        self.pixel_weights = pixel_weights if pixel_weights is None else pixel_weights.to(photo)
        self.factors = [self.lattice.factor(mask) for mask in self.counted(self.masks).flatten(1)]

    def __call__(self, image: Tensor) -> Tensor:
        """S r, (B, C, H, W) for (B, C, H, W)."""
        return _Nearest.apply(self._checked(image), self, False)

    def counted(self, image: Tensor) -> Tensor:
        """Ω r."""
        return image if self.pixel_weights is None else self.pixel_weights * image

    def spread(self, image: Tensor) -> Tensor:
        """Σ_m M_m W t_m of what has been counted: symmetric in it."""
        return (self.masks[:, None, None] * self._by_mask(image)).sum(0)

    @torch.no_grad()
    def by_mask(self, image: Tensor) -> Tensor:
        """W t_m, (M, B, C, H, W) for (B, C, H, W): each mask's map of the whole photo."""
        return self._by_mask(self.counted(self._checked(image)))

    def _by_mask(self, image: Tensor) -> Tensor:
        maps = [self.lattice.interpolate(table) for table in self._tables(image)]
        return torch.stack(maps).unflatten(3, image.shape[2:])

    @torch.no_grad()
    def tables(self, image: Tensor) -> Tensor:
        """t_m, (M, B, C, 9, 9, 9), for (B, C, H, W); by red, green and blue from 0 to 1."""
        tables = self._tables(self.counted(self._checked(image)))
        return torch.stack(tables).unflatten(3, (SIZE, SIZE, SIZE))

    def _checked(self, image: Tensor) -> Tensor:
        batch, _, height, width = self.shape
        if image.dim() != 4 or (image.shape[0], *image.shape[2:]) != (batch, height, width):
            expected = f"give ({batch}, C, {height}, {width}), as the photo"
            raise ArgumentError("image", tuple(image.shape), expected)
        if image.dtype != self.dtype:
            raise ArgumentError("image", image.dtype, f"give {self.dtype}, as the photo")
        return image

    def _tables(self, image: Tensor) -> list[Tensor]:
        tables = []
        for mask, factor in zip(self.masks, self.factors, strict=True):
            right = self.lattice.sums((mask * image).flatten(2))
            tables.append(torch.cholesky_solve(right.mT, factor).mT.to(image))
        return tables


@torch.no_grad()
def nearest_colour_map(
    photo: Tensor, image: Tensor, *, pixel_weights: Tensor | None = None, size: int = 128
) -> Tensor:
    """The map of the photo's colours nearest to an image, found once, at a small size.

    Args:
        photo: (B, 3, H, W), float32 or float64, values in [0, 1].
        image: (B, C, H, W), of the same dtype.
        pixel_weights: how much each pixel counts, (H, W) in [0, 1]; ``None``: all alike.
        size: long side in pixels at which the table is fitted.

    Returns:
        (B, C, H, W), the table of each photo at each of its pixels.
    """
    small, image = (_shrunk(batch, size) for batch in (photo, image))
    if pixel_weights is not None:
        pixel_weights = _shrunk(pixel_weights[None, None], size)[0, 0]
    (tables,) = NearestColourMap(small, pixel_weights=pixel_weights).tables(image)
    return lattice(photo).interpolate(tables.flatten(2)).unflatten(2, photo.shape[2:])


@torch.no_grad()
def colour_table(photo: Tensor, image: Tensor, *, size: int = 128) -> Tensor:
    """The smooth map from a photo's colours to an image's, as a table of all colours.

    Where the photo has no colours, the map that gives its colours the image's mean and covariance
    goes on: it is what S starts from.

    Args:
        photo, image: (1, 3, H, W), float32 or float64, values in [0, 1].
        size: long side in pixels at which the table is fitted.

    Returns:
        (3, 9, 9, 9), float64, by red, green and blue from 0 to 1; not clamped.
    """
    photo, image = (_shrunk(batch, size).double() for batch in (photo, image))
    source, target = (moments(batch.flatten(2).mT) for batch in (photo, image))
    matrix, offset = (part[0, 0] for part in colour_maps(source, target))
    base = torch.einsum("jk,bkhw->bjhw", matrix, photo) + offset[:, None, None]
    axis = torch.linspace(0, 1, SIZE, dtype=torch.float64, device=photo.device)
    entries = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    table = torch.einsum("jk,krgb->jrgb", matrix, entries) + offset[:, None, None, None]
    return table + NearestColourMap(photo).tables(image - base)[0, 0]


class _Nearest(torch.autograd.Function):
    """S or its adjoint; each is the other's gradient."""

    @staticmethod
    def forward(ctx, image: Tensor, nearest: NearestColourMap, adjoint: bool) -> Tensor:
        ctx.nearest, ctx.adjoint = nearest, adjoint
        if adjoint:
            return nearest.counted(nearest.spread(image))
        return nearest.spread(nearest.counted(image))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Nearest.apply(gradient, ctx.nearest, not ctx.adjoint), None, None


def _shrunk(images: Tensor, size: int) -> Tensor:
    scale = size / max(images.shape[2:])
    if scale >= 1:
        return images
    sides = [max(1, round(scale * side)) for side in images.shape[2:]]
    return F.interpolate(images, sides, mode="area")
