"""Train a feed-forward network; conf/train.yaml lists every argument."""

from hydra.utils import instantiate

from photostyle.conf.entry_point import entry_point
from photostyle.conf.training_settings import training_settings


@entry_point("train")
def main(config):
    """Train a network."""
    report = instantiate(config.training)(**training_settings(config))
    if report.is_main_process:
        print(report)
    return report.exit_code


if __name__ == "__main__":
    main()
