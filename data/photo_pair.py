"""A photo, a style and their masks from files, and the result to its file."""

import logging
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from photostyle.data.cube_file import check_cube
from photostyle.data.decoders import READABLE
from photostyle.data.full_resolution import apply_to_photo
from photostyle.data.image_io import check_holds, load_visible
from photostyle.data.lut_output import SavedLut, save_lut_of
from photostyle.data.masks import (
    MASK_FILES,
    WHOLE_SHARE,
    Masks,
    automatic_masks,
    check_mask_choices,
    save_masks,
)
from photostyle.data.painted_masks import load_masks
from photostyle.data.paths import (
    check_apart,
    check_folder,
    check_output,
    expected_size,
    file_status,
    is_film,
    suffix_like,
    written,
)
from photostyle.data.photo import Photo
from photostyle.data.photo_options import PhotoOptions
from photostyle.data.photo_run import is_one
from photostyle.data.reading import check_present
from photostyle.data.rescue import save_or_rescue
from photostyle.ops.affine import blend_affine
from photostyle.ops.errors import (
    ArgumentError,
    check_finite,
    check_whole,
)
from photostyle.ops.gram import pixel_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Files:
    """Where both photos come from and how the result is written; common to all methods.

    Attributes:
        content, style: image files.
        output: image file; ``None`` for ``<content>_<style>`` in the current folder, with the
            content's own suffix.
        content_mask, style_mask: see `data.load_masks`.
        masks: what to do without these: ``"auto"`` or ``None``, see
            `data.automatic_masks`, or ``"none"``: one style for the whole photo.
        whole_share: how much the whole photos count beside their regions, in [0, 1]; ``None``: see
            `data.masks.WHOLE_SHARE`.
        masks_dir: folder for the masks, see `data.save_masks`; those that are there already are
            replaced only where the output may be.
        lut: ``.cube`` file for the result as a LUT, see `ops.lut_fit.fit_lut`; ``None``: no file.
        seed: of every random number.
        options: how photos are read and the result is written.

    Raises:
        ArgumentError: for values other than these, and for an output that cannot be written.
    """

    content: str | Path
    style: str | Path
    output: str | Path | None = None
    content_mask: str | Path | None = None
    style_mask: str | Path | None = None
    masks: str | None = None
    whole_share: float | None = None
    masks_dir: str | Path | None = None
    lut: str | Path | None = None
    seed: int = 0
    options: PhotoOptions = PhotoOptions()

    def __post_init__(self):
        check_whole("seed", self.seed, 0)
        for argument in ("content", "style"):
            if getattr(self, argument) is None:
                raise ArgumentError(argument, None, "required; give an image file")
        painted = {name: getattr(self, name) for name in ("content_mask", "style_mask")}
        check_mask_choices(self.masks, self.whole_share, **painted)
        self._check_photos()
        inputs = {"content": self.content, "style": self.style, **painted}
        check_present(READABLE, **inputs)
        check_folder("masks_dir", self.masks_dir)
        self._check_no_masks()
        check_apart("output", self.target, **inputs)
        if self.masks_dir is not None:
            masks = [Path(self.masks_dir) / name for name in MASK_FILES.values()]
            check_apart("masks_dir", masks, **inputs)
        needed = expected_size(self.content, self.target) if self.options.full_resolution else 0
        check_output(self.target, overwrite=self.options.overwrite, needed=needed)
        if self.lut is not None:
            check_cube(self.lut, overwrite=self.options.overwrite)

    def _check_photos(self) -> None:
        """Another method takes more than photos one by one."""
        method = "no photo of that name; give one, or method=feedforward"
        is_shard = Path(self.content).suffix == ".tar"
        if is_shard or is_film(self.content) or not is_one(self.content):
            expected = f"{method} for a folder, a pattern, shards or a film"
            raise ArgumentError("content", self.content, expected)
        if Path(self.style).suffix == ".safetensors":
            raise ArgumentError("style", self.style, f"{method} for what save_style wrote")

    def _check_no_masks(self) -> None:
        """Masks may have been edited since they were written."""
        if self.masks_dir is None or self.options.overwrite:
            return
        for name in MASK_FILES.values():
            if file_status(Path(self.masks_dir) / name, "masks_dir") is not None:
                expected = f"{name} exists there; give another folder or overwrite=true"
                raise ArgumentError("masks_dir", self.masks_dir, expected)

    def _save_masks(self, masks: Masks, content: Tensor, style: Tensor, sizes: tuple) -> None:
        folder, overwrite = self.masks_dir, self.options.overwrite
        with written("masks_dir", folder, "masks cannot be written there"):
            files = save_masks(masks, content, style, folder, sizes, overwrite=overwrite)
        logger.info("masks: %s", ", ".join(map(str, files)))

    @property
    def target(self) -> Path:
        """The file to write."""
        if self.output is not None:
            return Path(self.output)
        content = Path(self.content)
        return Path(f"{content.stem}_{Path(self.style).stem}{suffix_like(content)}")

    def load(self) -> "PhotoPair":
        """Read both photos, and read or make their masks."""
        photos = [
            load_visible(path, argument=argument, max_pixels=self.options.max_pixels)
            for argument, path in (("content", self.content), ("style", self.style))
        ]
        check_holds(self.target, self.options.size_of(photos[0]))
        content, style = (photo.tensor(self.options.size) for photo in photos)
        opacities = tuple(photo.opacity(self.options.size) for photo in photos)
        sizes = content.shape[2:], style.shape[2:]
        files = self.content_mask, self.style_mask
        limit = self.options.max_pixels
        masks, kind = load_masks(*files, *sizes, max_pixels=limit), "painted"
        if self.content_mask is None and self.masks != "none":
            masks = automatic_masks(content, style, opacities=opacities, seed=self.seed)
            kind = "automatic"
            if len(masks.labels) > 1:
                logger.info("masks: %d regions that both photos have", len(masks.labels))
            else:
                logger.info("masks: none; one of the photos has no parts, or they share none")
        if self.masks_dir is not None:
            photo_sizes = tuple(photo.pixels.shape[:2] for photo in photos)
            self._save_masks(masks, content, style, photo_sizes)
        share = WHOLE_SHARE[kind] if self.whole_share is None else self.whole_share
        masks = masks.with_whole(share).visible(*opacities)
        return PhotoPair(photos[0], content, style, masks)

    def save(self, pair: "PhotoPair", image: Tensor, coefficients: Tensor | None) -> Photo:
        """Write the result; where its place cannot be written, to another, see `data.rescue`.

        Args:
            pair: what was loaded.
            image: (1, 3, H, W), values in [0, 1], at working size.
            coefficients: of the result at any size, (1, 3, 4, H, W), if there are any.

        Raises:
            ArgumentError: it is not finite, or could not be written to its place; says where it is.
        """
        check_finite("content", self.content, image if coefficients is None else coefficients)
        if self.options.full_resolution and coefficients is not None:
            coefficients = blend_affine(coefficients, self.options.strength).cpu()
            result = apply_to_photo(coefficients, pair.photo)
        else:
            if self.options.full_resolution:
                logger.info("without the guided filter the result has the working size")
            blend = pair.content.lerp(image.cpu(), self.options.strength)
            result = pair.photo.with_image(blend)
        options = {"quality": self.options.quality, "overwrite": self.options.overwrite}
        save_or_rescue(self.target, result, **options)
        return result

    def save_lut(self, pair: "PhotoPair", image: Tensor) -> SavedLut | None:
        """Write the result as a LUT, if ``lut`` says where.

        Args:
            pair, image: see `save`.

        Raises:
            ArgumentError: it could not be written.
        """
        if self.lut is None:
            return None
        blend = pair.content.lerp(image.cpu(), self.options.strength)
        weights = pixel_weights(pair.masks.content)
        return save_lut_of(self.lut, pair.content, blend, weights, overwrite=self.options.overwrite)


@dataclass(frozen=True, eq=False)
class PhotoPair:
    """Two photos at working size.

    Attributes:
        photo: the content at its own size.
        content, style: (1, 3, H, W) and (1, 3, H', W'), values in [0, 1].
        masks: of their sizes, the whole photo among them.
    """

    photo: Photo
    content: Tensor
    style: Tensor
    masks: Masks
