"""The closed form: one affine map of colours for each region that both photos have."""

from photostyle import colour_transfer
from photostyle.data import automatic_masks, load_image, save_image, save_masks
from photostyle.ops.affine import apply_affine, blend_affine

content = load_image("examples/pavilion.jpg", size=384)
style = load_image("examples/sunset.jpg", size=384)
masks = automatic_masks(content, style)
save_masks(masks, content, style, "outputs/masks")

masks = masks.with_whole(0.65)
coefficients = colour_transfer(content, style, masks.content, masks.style)
save_image(apply_affine(coefficients, content), "outputs/closed_form.jpg")
half = blend_affine(coefficients, 0.5)
save_image(apply_affine(half, content), "outputs/closed_form_half.jpg")
