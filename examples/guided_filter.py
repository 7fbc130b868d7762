"""Any image made locally affine in a photo, and the affine maps that carry it to another size."""

from pathlib import Path

import torch

from photostyle.data import load_image, save_image
from photostyle.ops import GuidedFilter
from photostyle.ops.affine import apply_affine, resize_affine

Path("outputs").mkdir(exist_ok=True)
large = load_image("examples/pavilion.jpg")
small = load_image("examples/pavilion.jpg", size=192)
rough = (small + 0.2 * torch.randn_like(small)).clamp(0, 1)

laplacian = GuidedFilter(radius=8, ridge=1e-3).laplacian(small)
save_image(laplacian.guided_filter(rough), "outputs/filtered.png")

coefficients = resize_affine(laplacian.coefficients(rough), large.shape[2:])
save_image(apply_affine(coefficients, large), "outputs/filtered_at_full_size.jpg")
