"""Train a network of the fast mode; conf/train.yaml lists every argument."""

from hydra.utils import instantiate
from omegaconf import OmegaConf

from photostyle.conf import entry_point


@entry_point("train")
def main(config):
    train_network = instantiate(config.training)
    settings = OmegaConf.to_container(config, resolve=True)
    del settings["training"]  # the same values once more
    report = train_network(settings=settings)
    if report.is_main_process:
        print(report)
    return report.exit_code


if __name__ == "__main__":
    main()
