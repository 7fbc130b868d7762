"""Every configuration file composes and makes what it says."""

import importlib
import inspect
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from benchmarks.networks import EMA_DECAY, any_style, one_style
from photostyle import conf, optimize, stylize, train
from photostyle.data import Files, PhotoOptions
from photostyle.data.grade_photos import grade_photos
from photostyle.feedforward import RunOptions
from photostyle.feedforward.stylize_photos import stylize_photos
from photostyle.ops import GRAM, MEAN_STD, GuidedFilter, StyleObjective, Transport, VGGFeatures
from photostyle.ops.colour_transfer import GAINS
from photostyle.ops.features import MODELS
from photostyle.optimize import Descent
from photostyle.optimize.descent import OPTIMIZERS
from photostyle.optimize.stylize_photo import stylize_photo

STYLE_LOSSES = {"transport": Transport, "gram": GRAM, "mean_std": MEAN_STD}
FOLDER = Path(conf.__file__).parent.resolve()
GROUPS = {
    group.name: sorted(file.stem for file in group.glob("*.yaml"))
    for group in sorted(FOLDER.iterdir())
    if any(group.glob("*.yaml")) and group.name != "parts"  # which files of groups share
}
CHOICES = [f"{group}={choice}" for group, choices in GROUPS.items() for choice in choices]
REQUIRED = ["content=photo.jpg", "style=dusk.jpg"]
REQUIRED_OF_NETWORKS = ["content=photo.jpg", "network=dusk"]
REQUIRED_OF_LUTS = ["content=photo.jpg", "lut=dusk.cube"]
REQUIRED_TO_TRAIN = ["style=dusk.jpg", "data.root=photos"]

pytestmark = pytest.mark.usefixtures("no_network", "hydra_folder")


@pytest.fixture
def hydra_folder():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


def resolved(*overrides, name="stylize"):
    """A composed configuration as plain Python values; fails if anything is left open."""
    required = {"stylize": REQUIRED, "train": REQUIRED_TO_TRAIN}.get(name, [])
    if "kind=universal" in overrides:
        required = [*REQUIRED_TO_TRAIN, "styles=photos"]
    if "method=feedforward" in overrides:
        required = REQUIRED_OF_NETWORKS
    if "method=lut" in overrides:
        required = REQUIRED_OF_LUTS
    config = compose(name, [*required, *overrides])
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def test_every_file_belongs_to_a_test():
    """A new group or entry point has to be added here."""
    assert set(GROUPS) == {
        "architecture", "data", "encoder", "kind", "method", "objective", "optimizer",
        "photorealism",
    }  # fmt: skip
    names = {file.stem for file in FOLDER.glob("*.yaml")}
    assert names == {"app", "command_line", "evaluate", "stylize", "train"}
    assert GROUPS["encoder"] == ["vgg"]
    assert set(GROUPS["method"]) == {"colour_transfer", "feedforward", "lut", "optimize"}
    assert set(GROUPS["optimizer"]) == set(OPTIMIZERS)
    assert set(GROUPS["objective"]) == set(STYLE_LOSSES)


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes(choice):
    """With every entry point that has the group, be it under another name (``group@name``)."""
    group, _, value = choice.partition("=")
    used = 0
    for name in ("stylize", "train"):
        choices = compose(name, return_hydra_config=True).hydra.runtime.choices
        for key in choices:
            if key.partition("@")[0] == group:
                used += bool(resolved(f"{key}={value}", name=name))
    assert used


@pytest.mark.parametrize(
    ("name", "given", "missing"),
    [
        ("stylize", [], "content"),
        ("evaluate", [], "results"),
        ("evaluate", ["results=a"], "pairs"),
        ("train", [], "style"),
        ("train", ["style=a.jpg"], "data.root"),
    ],
)
def test_required_values_are_open(command, name, given, missing):
    code, _, err = command(importlib.import_module(f"photostyle.{name}").main, *given)
    assert code == 2
    assert err == f"error: {missing}=???: required; give it as {missing}=VALUE\n"


def test_a_folder_of_styles_selects_the_kind(command):
    """As the README has it; and what is selected by hand stays."""
    words = ["--cfg", "job", "styles=photos", "data.root=photos"]
    assert "UniversalNet" in command(train.main, *words).out
    code, _, err = command(train.main, *words, "kind=one_style")
    assert code == 2
    assert err.startswith("error: styles: there is no such argument here, but with kind=universal;")


@pytest.mark.parametrize("model", MODELS)
def test_encoder(model):
    """A function of the layers alone; called only for the encoder whose weights are embedded."""
    factory = instantiate(compose("stylize", [f"encoder.model={model}"]).encoder)
    assert factory.func is VGGFeatures
    assert factory.keywords == {"model": model, "weights": None}
    if model == "vgg16":
        assert isinstance(factory(["relu1_1"]), VGGFeatures)


@pytest.mark.parametrize("objective", GROUPS["objective"])
@pytest.mark.parametrize("photorealism", GROUPS["photorealism"])
def test_objective(objective, photorealism):
    config = compose(
        "stylize",
        [
            f"objective={objective}",
            f"photorealism={photorealism}",
            "objective.style_weight=7",
            "objective.style_layers=[relu1_1,relu2_1]",
            "objective.layer_weights=null",
            "objective.content_layers=[relu2_2]",
            "objective.content_weight=1",
            "backend=reference",
        ],
    )
    made = instantiate(config.objective)
    assert isinstance(made, StyleObjective)
    expected = STYLE_LOSSES[objective]
    assert made.style_loss is expected or isinstance(made.style_loss, Transport)
    assert made.style_layers == ("relu1_1", "relu2_1")
    assert made.content_layers == ("relu2_2",)
    assert made.backend == "reference"
    assert made.weights["style"] == 7
    for name in ("matting", "edges"):
        assert (made.weights[name] > 0) == (photorealism != "off")


@pytest.mark.parametrize("photorealism", GROUPS["photorealism"])
def test_photorealism(photorealism):
    config = compose("stylize", [f"photorealism={photorealism}", "backend=reference"])
    guided_filter = instantiate(config.photorealism).guided_filter
    expected = {
        "strict": GuidedFilter(radius=8, ridge=1e-3, backend="reference"),
        "matting": GuidedFilter(radius=8, ridge=1e-3, backend="reference"),
        "loose": GuidedFilter(radius=4, ridge=1e-3, backend="reference"),
        "one_pass": GuidedFilter(radius=4, ridge=1e-3, backend="reference"),
        "off": None,
    }
    assert guided_filter == expected[photorealism]


def test_presets_go_from_the_photo_to_the_style():
    presets = [
        instantiate(compose("stylize", [f"photorealism={name}"]).objective)
        for name in ("strict", "matting", "loose")
    ]
    style = [(made.weights["style"], made.style_loss.gram_weight) for made in presets]
    assert style == sorted(style)
    texture = [made.style_loss.feature_gains for made in presets]
    assert [least for least, _ in texture] == sorted((t[0] for t in texture), reverse=True)
    assert [most for _, most in texture] == sorted(t[1] for t in texture)


def test_the_defaults_are_those_of_the_classes():
    config = compose("stylize", [])
    made, default = instantiate(config.objective), StyleObjective()
    assert made.weights == default.weights
    assert made.style_loss == default.style_loss
    assert made.style_layers == default.style_layers
    assert made.layer_weights == default.layer_weights
    assert (made.matting_radius, made.matting_ridge) == (
        default.matting_radius,
        default.matting_ridge,
    )
    assert instantiate(config.photorealism).guided_filter == GuidedFilter()
    assert instantiate(config.optimizer) == Descent()
    assert instantiate(config.options) == PhotoOptions()
    assert instantiate(compose("train").options) == RunOptions()
    assert tuple(compose("stylize", ["method=colour_transfer"]).gains) == GAINS
    assert made.style_loss.colour_gains == GAINS
    overrides = [*REQUIRED_TO_TRAIN, "photorealism.colour_map=false"]
    assert instantiate(compose("train", overrides).training).keywords["colour_map"] is False
    parameters = inspect.signature(optimize.optimize_image).parameters
    method = resolved()["method"]
    for name in ("colour_map", "keep_contrast", "init"):
        assert method[name] == parameters[name].default


@pytest.mark.parametrize("kind", ["one_style", "universal"])
def test_the_benchmarks_train_as_configured(kind):
    """They write it out, for machines without Hydra."""
    universal = ["kind=universal", "styles=photos"]
    overrides = [*REQUIRED_TO_TRAIN, *(universal if kind == "universal" else [])]
    expected = instantiate(compose("train", overrides).training).keywords
    setup = any_style("cpu") if kind == "universal" else one_style(torch.rand(1, 3, 64, 64))
    assert setup.guided_filter == expected["guided_filter"]
    assert setup.learning_rate == expected["schedule"].learning_rate
    assert expected["schedule"].ema_decay == EMA_DECAY
    assert setup.net.architecture == expected["network"]().architecture
    assert getattr(setup.losses, "region_share", None) == expected.get("region_share")
    for name in (
        "weights", "style_loss", "style_layers", "layer_weights", "matting_radius", "matting_ridge",
    ):  # fmt: skip
        assert getattr(setup.losses.objective, name) == getattr(expected["objective"], name), name


@pytest.mark.parametrize("optimizer", GROUPS["optimizer"])
def test_optimizer_and_method(tmp_path, monkeypatch, optimizer):
    """What the method is called with, down to plain lists: called in place of the real one."""
    monkeypatch.chdir(tmp_path)
    for word in REQUIRED:
        Path(word.partition("=")[2]).touch()
    calls = []
    monkeypatch.setattr(
        "photostyle.optimize.stylize_photo.stylize_photo",
        lambda **arguments: calls.append(arguments),
    )
    overrides = [*REQUIRED, f"optimizer={optimizer}", "objective.style_layers=[relu1_1]"]
    config = compose("stylize", [*overrides, "objective.layer_weights=[1]"])
    instantiate(config.method)
    (arguments,) = calls
    assert isinstance(arguments["optimizer"], Descent)
    assert arguments["optimizer"].name == optimizer
    assert isinstance(arguments["objective"], StyleObjective)
    assert isinstance(arguments["guided_filter"], GuidedFilter)
    assert isinstance(arguments["files"], Files)
    # Every argument is one that the real function names, or passes on by name.
    known = {*inspect.signature(stylize_photo).parameters}
    known |= {*inspect.signature(optimize.optimize_image).parameters}
    assert set(arguments) <= known


def test_feedforward(monkeypatch):
    """Called with arguments that the real function has, and without the optimiser's."""
    calls = []
    monkeypatch.setattr(
        "photostyle.feedforward.stylize_photos.stylize_photos",
        lambda **arguments: calls.append(arguments),
    )
    overrides = ["method=feedforward", "content=photos", "network=dusk", "strength=0.5"]
    instantiate(compose("stylize", overrides).method)
    (arguments,) = calls
    assert (arguments["content"], arguments["network"]) == ("photos", "dusk")
    assert (arguments["output"], arguments["options"].strength) == (None, 0.5)
    assert set(arguments) <= {*inspect.signature(stylize_photos).parameters}


def test_lut(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "photostyle.data.grade_photos.grade_photos",
        lambda **arguments: calls.append(arguments),
    )
    instantiate(compose("stylize", ["method=lut", *REQUIRED_OF_LUTS, "strength=0.5"]).method)
    (arguments,) = calls
    assert (arguments["content"], arguments["lut"]) == ("photo.jpg", "dusk.cube")
    assert (arguments["output"], arguments["options"].strength) == (None, 0.5)
    assert set(arguments) <= {*inspect.signature(grade_photos).parameters}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("photorealism.projection.radius=3", "photorealism.guided_filter.radius"),
        ("photorealism.energy_weight=3", "photorealism.matting_weight"),
        ("encoder=vgg19", "encoder.model=vgg19"),
        ("encoder.encoder=vgg19", "encoder.model"),
    ],
)
def test_old_names(command, old, new):
    """One line says what it is called now."""
    code, _, err = command(stylize.main, *REQUIRED, old)
    assert (code, err) == (2, f"error: {old}: is called {new} now\n")


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("init=noise", ", but with method=optimize;"),
        ("optimizer=adam", ", but with method=optimize;"),
        ("optimizer.steps=[3]", ", but with method=optimize;"),
        ("photorealism=loose", ", but with method=optimize;"),
        ("gains=[1,2]", ", but with method=colour_transfer;"),
        ("masks_dir=m", ", but with method=colour_transfer or method=optimize;"),
        ("stile=a.jpg", "; did you mean style?"),
        ("x=1", ";"),
    ],
)
def test_arguments_of_another_method(command, word, hint):
    code, _, err = command(stylize.main, "method=feedforward", *REQUIRED_OF_NETWORKS, word)
    key = word.partition("=")[0]
    assert code == 2
    assert err == f"error: {key}: there is no such argument here{hint} --cfg job lists all\n"
