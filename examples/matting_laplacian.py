"""The matting Laplacian L of a photo: how far an image is from being a recolouring of it."""

import torch

from photostyle.data import load_image
from photostyle.ops import MattingLaplacian

photo = load_image("examples/pavilion.jpg", size=256)
laplacian = MattingLaplacian(photo, radius=1, epsilon=1e-5)

warmer = photo * torch.tensor([1.1, 1.0, 0.8]).view(1, 3, 1, 1)
noisy = photo + 0.05 * torch.randn_like(photo)
for name, image in (("warmer", warmer), ("noisy", noisy)):
    print(name, f"{laplacian.matting_loss(image).item():.2e}")

image = noisy.requires_grad_()
laplacian.matting_loss(image).sum().backward()
product = laplacian.product(image.detach())
print("gradient is 2 L p:", torch.allclose(image.grad * image.numel(), 2 * product, atol=1e-4))
