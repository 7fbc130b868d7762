"""What a stranger installs: one package, whatever stands beside it, from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photostyle

ROOT = Path(__file__).parents[1]
NEVER_LOADED = {
    "accelerate", "sklearn", "skimage", "tensorboard", "torch._dynamo", "torchvision", "webdataset",
}  # fmt: skip
"""What one pass of a network needs none of, and what takes long to import."""


def run(*words, cwd, **environment):
    """A fresh process; its output, and what it prints on failure."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Of the sdist, which is built from a copy: setuptools leaves its own files there."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("this is no git checkout, so what belongs to it is not known")
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if name and path.is_file() and not name.startswith(("docs/", "tests/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(path.read_bytes())
    run("-m", "build", "--outdir", folder, source, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """An otherwise empty folder with the wheel in it."""
    folder = tmp_path_factory.mktemp("installed")
    run("-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, wheel, cwd=folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    """A working folder with two photos, and files that are called as parts of ours."""
    y, x = np.mgrid[0:48, 0:64]
    pixels = np.stack([4 * x, 5 * y, 255 - 4 * x], -1).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[:, ::-1] // 2).save(tmp_path / "b.png")
    for name in ("data.py", "ops.py", "train.py"):
        (tmp_path / name).write_text("raise RuntimeError('this is the user’s own file')\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "stylize.yaml").write_text("content: mine\n")
    return tmp_path


def test_one_package(wheel, installed):
    names = {path.name for path in installed.iterdir()}
    assert names == {"bin", "photostyle", f"photostyle-{photostyle.__version__}.dist-info"}
    scripts = {path.name for path in (installed / "bin").iterdir()}
    commands = ("app", "evaluate", "stylize", "train")
    assert scripts == {f"photostyle-{command}" for command in commands}
    packed = set(zipfile.ZipFile(wheel).namelist())
    for needed in ("ops/matting/kernels.cu", "ops/weights/vgg16.safetensors", "conf/stylize.yaml"):
        assert f"photostyle/{needed}" in packed


def test_stylizes_from_another_folder(installed, photos):
    """Beside files of the same names, without a home folder, by all three ways."""
    environment = {"PYTHONPATH": str(installed), "HOME": "/nonexistent"}
    where = run("-c", "import photostyle; print(photostyle.__file__)", cwd=photos, **environment)
    assert Path(where.strip()).parent == installed / "photostyle"
    command = installed / "bin" / "photostyle-stylize"
    small = ["content=a.png", "size=48", "device=cpu"]
    for name, words in {
        "slow": ["style=b.png", "optimizer.steps=[1,1]", "masks=none"],
        "closed": ["method=colour_transfer", "style=b.png"],
        "fast": ["method=feedforward", "network=dusk"],
    }.items():
        run(command, *small, *words, f"output={name}.png", cwd=photos, **environment)
        with Image.open(photos / f"{name}.png") as image:
            assert image.size == (64, 48)


def test_the_checkout_from_another_folder(photos):
    run(ROOT / "stylize.py", "method=colour_transfer", "content=a.png", "style=b.png", cwd=photos)
    assert (photos / "a_b.png").is_file()


def test_without_a_cache_for_compiled_code(photos):
    """Where neither the installation nor a home folder can be written to."""
    code = (
        "from numba.core import caching\n"
        "for cls in (caching.CacheImpl, *caching.CacheImpl.__subclasses__()):\n"
        "    cls._locator_classes = []\n"
        "import torch\n"
        "from photostyle.ops import MattingLaplacian\n"
        "guide = torch.rand(1, 3, 9, 9)\n"
        "print(MattingLaplacian(guide, backend='cpu').product(torch.ones(1, 1, 9, 9)).abs().max())"
    )
    assert "tensor(" in run("-c", code, cwd=photos)


def test_start_up(photos):
    """The configuration is shown without PyTorch, one pass runs without what takes long."""
    loaded = (
        "import sys, runpy; sys.argv[1:] = {}\ntry: runpy.run_path({!r}, run_name='__main__')\n"
    )
    loaded += "except SystemExit: pass\nprint('LOADED', *sys.modules)"
    script = str(ROOT / "stylize.py")

    def modules(*words):
        return set(
            run("-c", loaded.format(list(words), script), cwd=photos).split("LOADED")[1].split()
        )

    assert not {"torch", "numba", "PIL", "scipy"} & modules("--cfg", "job")
    used = modules("method=feedforward", "content=a.png", "network=dusk", "device=cpu")
    assert "torch" in used
    assert not NEVER_LOADED & used


def test_the_package_itself():
    assert photostyle.__version__
    assert callable(photostyle.colour_transfer)
    assert "optimize_image" in dir(photostyle)
    with pytest.raises(AttributeError, match="nothing"):
        _ = photostyle.nothing
