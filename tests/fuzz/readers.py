"""What is read, and whole files to begin with; all of them are made here."""

import json
import random
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
import tifffile
import torch
from PIL import Image, ImageCms

from photostyle.data import Photo, PhotoOptions, TrainingPhotos, load_masks, load_photo, save_photo
from photostyle.data.colour_space import adobe_rgb_profile
from photostyle.data.cube_file import load_cube, save_cube
from photostyle.data.vips import libvips, to_vips
from photostyle.feedforward.checkpoint import Checkpoint, Checkpoints
from photostyle.feedforward.style_network import StyleNetwork, load_network
from photostyle.feedforward.style_source import StyleSource
from photostyle.feedforward.style_statistics import load_style, save_style
from photostyle.feedforward.stylize_photos import stylize_photos
from photostyle.feedforward.training_run import tensors_fit
from photostyle.feedforward.transform_net import TransformNet
from photostyle.feedforward.universal_net import UniversalNet
from photostyle.ops import GuidedFilter
from photostyle.ops.lut import Lut
from tests.fuzz.mutants import damaged, damaged_tensors, with_png_sums, with_tar_sums

HEIGHT, WIDTH = 72, 96
SIZE = 32


@dataclass(frozen=True)
class Reader:
    """A kind of file.

    Attributes:
        name: of the kind.
        suffix: of its files.
        whole: makes some that are whole, in an empty folder.
        read: reads one, and does with it what is done with such a file.
        mutant: makes a damaged one of whole ones.
    """

    name: str
    suffix: str
    whole: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    mutant: Callable[[list[bytes], random.Random], bytes] = damaged


def _pixels() -> np.ndarray:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    noise = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH, 3))
    return (np.stack([2 * x, 2 * y, x + y], -1) + noise).astype(np.uint8)


def _profiles(folder: Path) -> list[bytes]:
    matrix = adobe_rgb_profile()
    grey = matrix.replace(b"RGB XYZ ", b"GRAYXYZ ").replace(b"rTRC", b"kTRC")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    cmyk = libvips().Operation.call("profile_load", "cmyk")
    return [matrix, srgb, srgb, lab, grey, cmyk]


def _stored(file_format: str, image: Image.Image, **options) -> bytes:
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _photos(folder: Path) -> list[bytes]:
    pillow_heif.register_heif_opener()
    pixels = _pixels()
    image = Image.fromarray(pixels)
    with_alpha = Image.fromarray(np.dstack([pixels, pixels[..., 0]]))
    exif = Image.Exif()
    exif[274], exif[271], exif[0x8769] = 6, "Maker", {0xA002: WIDTH, 0xA003: HEIGHT, 0xA001: 1}
    block, profile = exif.tobytes(), adobe_rgb_profile()
    tagged = {"exif": block, "icc_profile": profile, "dpi": (300, 300)}
    files = [
        _stored("JPEG", image, **tagged),
        _stored("JPEG", image, progressive=True),
        _stored("JPEG", image.convert("CMYK")),
        _stored("JPEG", image.convert("L")),
        _stored("PNG", image, **tagged),
        _stored("PNG", with_alpha),
        _stored("PNG", image.quantize(9)),
        _stored("PNG", Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)),
        _stored("WEBP", image, exif=block, icc_profile=profile),
        _stored("WEBP", with_alpha, lossless=True),
        _stored("AVIF", image, exif=block),
        _stored("HEIF", image, exif=block),
        _stored("JPEG2000", image),
        _stored("BMP", image),
        _stored("BMP", image.quantize(9)),
        _stored("TIFF", image, **tagged),
        _stored("TIFF", image, compression="tiff_lzw"),
        _stored("TIFF", image.convert("CMYK"), compression="jpeg"),
    ]
    wide = pixels.astype(np.uint16) * 200
    for array, options in (
        (wide, {"compression": "zlib", "predictor": True}),
        (wide, {"bigtiff": True, "tile": (16, 16)}),
        ((wide / 65535).astype(np.float32), {}),
    ):
        file = BytesIO()
        tifffile.imwrite(file, array, photometric="rgb", **options)
        files.append(file.getvalue())
    options = {"compression": "jpeg", "tile": True, "tile_width": 32, "tile_height": 32}
    files.append(to_vips(pixels).tiffsave_buffer(**options))
    return files


def _damaged_photo(whole: list[bytes], chance: random.Random) -> bytes:
    mutant = damaged(whole, chance)
    return with_png_sums(mutant) if chance.random() < 0.8 else mutant


def _read_photo(path: Path) -> None:
    photo = load_photo(path)
    image = photo.tensor(SIZE)
    if not image.isfinite().all():
        raise AssertionError("a photo of numbers that are not finite")
    photo.opacity(SIZE)
    suffix = (".png", ".jpg", ".tif", ".webp")[sum(path.read_bytes()[-64:]) % 4]
    save_photo(path.with_name(f"out{suffix}"), photo.with_image(image))


def _read_profile(path: Path) -> None:
    profile = path.read_bytes()
    pixels = _pixels()
    space = {b"GRAY": "L", b"CMYK": "CMYK"}.get(profile[16:20], "RGB")
    picture = Image.fromarray(pixels).convert(space)
    picture.save(path.with_suffix(".tif"), icc_profile=profile)
    _read_photo(path.with_suffix(".tif"))


def _masks(folder: Path) -> list[bytes]:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[20:50, 30:70] = 1
    colours = Image.fromarray(labels).convert("P")
    colours.putpalette([200, 30, 30, 30, 30, 200])
    image = colours.convert("RGB")
    return [
        _stored("PNG", colours),
        _stored("PNG", image),
        _stored("PNG", Image.fromarray(labels)),
        _stored("PNG", Image.fromarray(labels.astype(np.uint16))),
        _stored("JPEG", image, quality=95),
        _stored("TIFF", image, compression="tiff_lzw"),
    ]


def _read_mask(path: Path) -> None:
    load_masks(path, path, (HEIGHT, WIDTH), (HEIGHT, WIDTH))


def _cubes(folder: Path) -> list[bytes]:
    corners = np.stack(np.meshgrid(*[np.linspace(0, 1, 3)] * 3, indexing="ij"), -1)
    curve = np.linspace([0, 0, 0], [1, 1, 1], 5)
    files = []
    for table in (corners, curve):
        save_cube(folder / "a.cube", Lut(table.astype(np.float32)))
        files.append((folder / "a.cube").read_bytes())
    return files


def _read_cube(path: Path) -> None:
    result = load_cube(path)(torch.linspace(-0.5, 1.5, 300).reshape(1, 3, 10, 10))
    if not result.isfinite().all():
        raise AssertionError("colours that are not finite")


def _photo_beside(path: Path) -> Path:
    photo = path.with_name("photo.png")
    if not photo.exists():
        save_photo(photo, Photo(_pixels()))
    return photo


def _stylize(path: Path, network: Path | None, style: StyleSource = StyleSource()) -> None:
    options = PhotoOptions(size=SIZE, overwrite=True)
    files = _photo_beside(path), network, path.with_name("out.png")
    stylize_photos(*files, style=style, options=options, device="cpu", workers=1)


def _networks(folder: Path) -> list[bytes]:
    nets = TransformNet(4, 1), TransformNet(4, 1, "content"), UniversalNet(4, 1)
    files = []
    for net, guided_filter in zip(nets, (GuidedFilter(3), None, GuidedFilter(3)), strict=True):
        torch.nn.init.normal_(net.output.weight, std=0.1)
        network = StyleNetwork(net, guided_filter, "any", {"seed": 1}, {"loss": 0.5})
        network.save(folder / "a.safetensors")
        files.append((folder / "a.safetensors").read_bytes())
    return files


def _read_network(path: Path) -> None:
    universal = load_network(path).is_universal
    style = StyleSource(_photo_beside(path), masks="none") if universal else StyleSource()
    _stylize(path, path, style)


def _statistics(folder: Path) -> list[bytes]:
    style = Photo(_pixels()).tensor()
    save_style(UniversalNet(4, 1).statistics(style), folder / "a.safetensors")
    return [(folder / "a.safetensors").read_bytes()]


def _read_statistics(path: Path) -> None:
    load_style(path)
    _stylize(path, None, StyleSource(path))


@cache
def _trained() -> TransformNet:
    return TransformNet(2, 1)


def _checkpoints(folder: Path) -> list[bytes]:
    tensors = {"random": torch.get_rng_state()}
    for name, parameter in _trained().named_parameters():
        for group in ("net", "ema", "best", "adam.exp_avg", "adam.exp_avg_sq"):
            tensors[f"{group}.{name}"] = parameter.detach().clone()
        tensors[f"adam.step.{name}"] = torch.zeros(())
    contents = {"style": "0123", "data.root": "4567"}
    values = {"skipped": 0, "metrics": {"loss": 1.5}, "processes": 1, "contents": contents}
    Checkpoints(folder, 1).save(
        Checkpoint(7, tensors, values, {"seed": 1, "network": {"width": 2}})
    )
    return [(folder / "step_00000007.safetensors").read_bytes()]


def _read_checkpoint(path: Path) -> None:
    folder = path.with_name("checkpoints")
    folder.mkdir(exist_ok=True)
    (folder / "step_00000007.safetensors").write_bytes(path.read_bytes())
    found = Checkpoints(folder, 1).newest(lambda one: tensors_fit(_trained(), one.tensors))
    if found is not None:
        json.dumps([found.step, found.values, found.settings])


def _shards(folder: Path) -> list[bytes]:
    files = []
    for tar_format in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        file = BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tar_format) as tar:
            for number in range(3):
                content = _stored("JPEG", Image.fromarray(_pixels()))
                member = tarfile.TarInfo(f"{'é' * 45}/{'a' * 20}{number}.jpg")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
        files.append(file.getvalue())
    return files


def _damaged_shard(whole: list[bytes], chance: random.Random) -> bytes:
    return with_tar_sums(damaged(whole, chance))


def _read_shard(path: Path) -> None:
    photos = TrainingPhotos(path, crop=64, batch_size=2, workers=0)
    next(photos.batches())


_ALL = (
    Reader("photo", "", _photos, _read_photo, _damaged_photo),
    Reader("mask", ".png", _masks, _read_mask, _damaged_photo),
    Reader("profile", ".icc", _profiles, _read_profile),
    Reader("lut", ".cube", _cubes, _read_cube),
    Reader("network", ".safetensors", _networks, _read_network, damaged_tensors),
    Reader("statistics", ".safetensors", _statistics, _read_statistics, damaged_tensors),
    Reader("checkpoint", ".safetensors", _checkpoints, _read_checkpoint, damaged_tensors),
    Reader("shard", ".tar", _shards, _read_shard, _damaged_shard),
)
READERS = {reader.name: reader for reader in _ALL}
