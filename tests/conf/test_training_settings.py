"""What a resumed run must share, and what a network's file tells."""

from omegaconf import OmegaConf

from photostyle.conf.training_settings import training_settings


def test_free_and_private_keys():
    config = OmegaConf.create({
        "style": "light.png",
        "output": "run",
        "device": "cpu",
        "steps": 4,
        "data": {"root": "FOLDER", "workers": 2, "held_out": "${steps}"},
        "encoder": {"model": "vgg16", "weights": "vgg.pth"},
        "objective": {"encoder": {"model": "vgg16", "weights": "vgg.pth"}, "layers": ["relu1_1"]},
        "intervals": {"log": 1, "validation": 3},
        "training": {"style": "light.png"},
    })  # fmt: skip
    shared = {
        "style": "light.png",
        "steps": 4,
        "data": {"held_out": 4},
        "encoder": {"model": "vgg16", "weights": "vgg.pth"},
        "objective": {"encoder": {"model": "vgg16", "weights": "vgg.pth"}, "layers": ["relu1_1"]},
        "intervals": {"validation": 3},
    }
    settings = training_settings(config)
    assert settings["settings"] == shared
    text = str(settings["published"])
    assert [value for value in ("light.png", "FOLDER", "vgg.pth") if value in text] == []
    del shared["style"], shared["encoder"]["weights"], shared["objective"]["encoder"]["weights"]
    assert settings["published"] == shared
