"""VGG features: values against other implementations, and every bad weights file."""

import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file, save_file

from photostyle import ops
from photostyle.ops import ArgumentError, VGGFeatures

EMBEDDED = Path(ops.__file__).parent / "weights" / "vgg16.safetensors"
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

pytestmark = pytest.mark.usefixtures("no_network")


def random_image(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def assert_near(actual, expected, name):
    """Relative L2; one convolution rounds to about 1e-6 of it."""
    error = float((actual - expected).norm() / expected.norm())
    assert error < 1e-5, f"{name}: {error:.1e}"


@pytest.fixture(scope="module")
def models():
    """torchvision's own networks, untrained: encoder name -> model in eval mode."""
    torch.manual_seed(0)
    models = {}
    for name in ("vgg11", "vgg11_bn"):
        with torch.device("meta"):  # the classifier would take seconds to fill
            model = getattr(torchvision.models, name)(weights=None).eval()
        model.features.to_empty(device="cpu")
        for key, value in model.features.state_dict().items():
            if value.dim() == 4:
                torch.nn.init.kaiming_normal_(value)
            elif value.is_floating_point():
                # Fresh batch statistics are 0 and 1, which would hide a mix-up.
                value.uniform_(0.5, 2) if key.endswith("running_var") else value.normal_(std=0.5)
            else:
                value.fill_(1)
        models[name] = model.requires_grad_(False)
    return models


@pytest.fixture(scope="module")
def weight_files(models, tmp_path_factory):
    """(encoder, suffix) -> a file of torchvision's state_dict."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for name, model in models.items():
        # The classifier makes up nine tenths of a file and is not read.
        state = {key: v for key, v in model.state_dict().items() if key.startswith("features.")}
        files[name, ".pth"] = folder / f"{name}.pth"
        files[name, ".safetensors"] = folder / f"{name}.safetensors"
        torch.save(state, files[name, ".pth"])
        save_file(state, files[name, ".safetensors"])
    return files


def test_layers_and_shapes():
    layers = ["relu2_2", "conv1_1", "pool1", "relu1_1", "relu4_1"]
    activations = VGGFeatures(layers)(random_image(2, 3, 37, 50))
    shapes = {name: tuple(value.shape) for name, value in activations.items()}
    assert shapes == {
        "conv1_1": (2, 64, 37, 50),
        "relu1_1": (2, 64, 37, 50),
        "pool1": (2, 64, 18, 25),
        "relu2_2": (2, 128, 18, 25),
        "relu4_1": (2, 512, 4, 6),
    }
    assert activations["conv1_1"].min() < 0
    torch.testing.assert_close(activations["relu1_1"], activations["conv1_1"].relu())


def test_embedded_vgg16_by_hand():
    """The published recipe: BGR, 0..255, minus the mean, convolutions one after the other."""
    state = {name: value.float() for name, value in load_file(EMBEDDED).items()}
    image = random_image(1, 3, 40, 32)
    x = image[:, [2, 1, 0]] * 255 - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    expected = {}
    for block, depth in enumerate((2, 2, 3, 3, 1), start=1):
        for i in range(1, depth + 1):
            name = f"{block}_{i}"
            x = F.conv2d(x, state[f"conv{name}.weight"], state[f"conv{name}.bias"], padding=1)
            expected[f"conv{name}"] = x
            x = F.relu(x)
            expected[f"relu{name}"] = x
        x = F.max_pool2d(x, 2)
        expected[f"pool{block}"] = x
    del expected["pool5"]  # needs conv5_2 and conv5_3
    actual = VGGFeatures(list(expected), padding_mode="zeros")(image)
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert_near(actual[name], value, name)


@pytest.mark.parametrize("encoder", ["vgg11", "vgg11_bn"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvision_weights_give_torchvisions_activations(models, weight_files, encoder, suffix):
    # Our names of the layers of torchvision's list, in order.
    step = ("conv", "bn", "relu") if encoder.endswith("_bn") else ("conv", "relu")
    names = []
    for block, depth in enumerate((1, 1, 2, 2, 2), start=1):
        names += [f"{kind}{block}_{i}" for i in range(1, depth + 1) for kind in step]
        names.append(f"pool{block}")
    assert len(names) == len(models[encoder].features)

    image = random_image(2, 3, 48, 40)
    x = (image - IMAGENET_MEAN) / IMAGENET_STD
    expected = {}
    with torch.no_grad():
        for name, layer in zip(names, models[encoder].features, strict=True):
            x = layer(x.clone())  # torchvision's ReLU works in place
            # Batch normalisation belongs to the convolution before it.
            expected[name.replace("bn", "conv")] = x
    weights = weight_files[encoder, suffix]
    features = VGGFeatures(list(expected), encoder, weights, padding_mode="zeros")
    # Within a model that is being trained it does not train along.
    torch.nn.Sequential(features).train()
    features(image)
    actual = features(image)
    assert list(actual) == list(expected)
    for name, value in expected.items():
        assert_near(actual[name], value, name)


def test_frozen_but_differentiable_in_the_image():
    features = VGGFeatures(["relu2_1"])
    assert list(features.parameters())
    assert not any(parameter.requires_grad for parameter in features.parameters())
    assert not features.training
    image = random_image(1, 3, 16, 16).requires_grad_()
    features(image)["relu2_1"].square().mean().backward()
    assert torch.isfinite(image.grad).all()
    assert image.grad.abs().amax((0, 2, 3)).min() > 0
    assert all(parameter.grad is None for parameter in features.parameters())


def test_gradient_in_float64():
    features = VGGFeatures(["relu1_1", "relu2_1"]).double()
    image = random_image(1, 3, 16, 16, dtype=torch.float64).requires_grad_()
    direction = random_image(1, 3, 16, 16, seed=1, dtype=torch.float64) - 0.5

    def value(x):
        return sum(activation.square().mean() for activation in features(x).values())

    (gradient,) = torch.autograd.grad(value(image), image)
    step = 1e-7 * direction
    with torch.no_grad():
        numeric = (value(image + step) - value(image - step)) / 2e-7
    torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-5, atol=0)


def test_builds_no_deeper_than_asked():
    shallow = VGGFeatures(["relu1_2"])
    assert sum(parameter.numel() for parameter in shallow.parameters()) == 1792 + 36928


# ------------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"layers": ["relu9_9"]},
            r"^layers=relu9_9: unknown in vgg16; choose among conv1_1",
        ),
        ({"layers": ["relu3_3"], "model": "vgg11"}, "^layers=relu3_3: unknown in vgg11"),
        (
            {"layers": ["relu1_1"], "model": "resnet"},
            "^model=resnet: unknown; choose one of vgg11, vgg13, vgg16, vgg19, vgg11_bn",
        ),
        (
            {"layers": ["relu1_1"], "padding_mode": "reflect"},
            "^padding_mode=reflect: unknown; choose one of replicate, zeros",
        ),
        ({"layers": ["relu5_2"]}, "embedded weights end at relu5_1"),
    ],
    ids=["layer", "layer of another encoder", "encoder", "padding", "beyond the embedded weights"],
)
def test_unknown_names(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        VGGFeatures(**arguments)


def truncated(source, path, share):
    content = source.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


BAD_FILES = {
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "empty": Path.touch,
    "text": lambda path: path.write_text("this is a readme, no weights at all\n"),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 20),
    "truncated": lambda path: truncated(EMBEDDED, path, 0.001),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_weights_file(tmp_path, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    BAD_FILES[kind](path)
    with pytest.raises(ArgumentError) as caught:
        VGGFeatures(["relu1_1"], weights=path)
    message = str(caught.value)
    assert message.startswith(f"weights={path}: ")
    assert "\n" not in message
    assert ("no such file" if kind in ("missing", "folder") else "weights file") in message


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_torch_file(tmp_path, share, legacy):
    state = {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
    whole, path = tmp_path / "whole.pth", tmp_path / "weights.pth"
    torch.save(state, whole, _use_new_zipfile_serialization=not legacy)
    VGGFeatures(["relu1_1"], weights=whole)
    truncated(whole, path, share)
    with pytest.raises(ArgumentError, match=r"weights file") as caught:
        VGGFeatures(["relu1_1"], weights=path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"encoder.layer.weight": torch.zeros(4)},
        {},
        {"conv1_1.weight": torch.zeros(8, 3, 3, 3), "conv1_1.bias": torch.zeros(8)},
        torch.zeros(3),
        [torch.zeros(3)],
        {"features.0.weight": 3},
        {"state_dict": {"features.0.weight": torch.zeros(64, 3, 3, 3)}},
    ],
    ids=["other names", "nothing", "other shapes", "tensor", "list", "number", "nested"],
)
def test_weights_of_something_else(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ArgumentError, match=r"^weights=.*other\.pth: .*(no weights of vgg16|dict)"):
        VGGFeatures(["relu1_1"], weights=tmp_path / "other.pth")


def test_safetensors_of_something_else(tmp_path):
    save_file({"encoder.layer.weight": torch.zeros(4)}, tmp_path / "other.safetensors")
    with pytest.raises(ArgumentError, match=r"^weights=.*: these are no weights of vgg16"):
        VGGFeatures(["relu1_1"], weights=tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("file", "encoder"), [("vgg11", "vgg11_bn"), ("vgg11_bn", "vgg11"), ("vgg11", "vgg19")]
)
def test_weights_of_another_encoder(weight_files, file, encoder):
    with pytest.raises(ArgumentError, match=rf"these are no weights of {encoder} "):
        VGGFeatures(
            ["relu2_2"] if encoder == "vgg19" else ["relu3_1"],
            encoder,
            weight_files[file, ".safetensors"],
        )


class RunsCode:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_code_in_a_weights_file_is_not_run(tmp_path, save):
    path, witness = tmp_path / "weights.pth", tmp_path / "witness"
    state = {"features.0.weight": RunsCode(witness)}
    if save == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state, protocol=2))
    with pytest.raises(ArgumentError, match=rf"^weights={path}: no weights file"):
        VGGFeatures(["relu1_1"], weights=path)
    assert not witness.exists()
    # The same file does run code for a reader that trusts it.
    torch.load(path, weights_only=False) if save == "torch" else pickle.loads(path.read_bytes())
    assert witness.exists()


@pytest.mark.parametrize(
    "error",
    [
        URLError("Name or service not known"),
        TimeoutError("timed out"),
        RuntimeError('invalid hash value (expected "6c6a11df", got "00")'),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("encoder", ["vgg19", "vgg11_bn"])
def test_failing_download_says_what_to_do(monkeypatch, tmp_path, encoder, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(ArgumentError) as caught:
        VGGFeatures(["relu1_1"], model=encoder)
    message = str(caught.value)
    assert message.startswith(f"model={encoder}: its weights could not be downloaded")
    assert str(error) in message
    assert f"https://download.pytorch.org/models/{encoder}-" in message
    assert "weights=FILE" in message
    assert "\n" not in message


def test_a_flat_photo_has_flat_features():
    """Beyond its border the photo goes on; with zeros there, the border is an edge."""
    image = torch.full((1, 3, 32, 48), 0.3)
    layers = ["relu1_2", "relu2_2", "relu3_3"]
    spread = {
        mode: [x.std((2, 3)).max() for x in VGGFeatures(layers, padding_mode=mode)(image).values()]
        for mode in ("replicate", "zeros")
    }
    assert max(spread["replicate"]) < 1e-3 < min(spread["zeros"])


def test_download_is_used(monkeypatch, models):
    """The weights that torchvision hands over are those of the chosen encoder."""
    asked = []

    def state_dict(entry, **_):
        asked.append(entry.url)
        return {f"features.{k}": v for k, v in models["vgg11"].features.state_dict().items()}

    monkeypatch.setattr("torchvision.models.WeightsEnum.get_state_dict", state_dict)
    image = random_image(1, 3, 16, 16)
    actual = VGGFeatures(["conv1_1"], model="vgg11", padding_mode="zeros")(image)["conv1_1"]
    expected = models["vgg11"].features[0]((image - IMAGENET_MEAN) / IMAGENET_STD)
    assert_near(actual, expected, "conv1_1")
    assert len(asked) == 1
    assert "/vgg11-" in asked[0]


def test_convolve_in_bfloat16():
    """Three digits are left, and activations and gradient have the right type."""
    encoder = VGGFeatures(["relu1_1", "relu3_1"])
    image = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    exact = encoder(image)
    image.requires_grad_(True)
    coarse = encoder.convolve_in(torch.bfloat16)(image)
    for layer, features in exact.items():
        assert coarse[layer].dtype == torch.bfloat16
        error = (coarse[layer].float() - features).norm() / features.norm()
        assert 0 < error < 0.02
    coarse["relu3_1"].float().square().mean().backward()
    assert image.grad.dtype == torch.float32
    assert image.grad.abs().sum() > 0
