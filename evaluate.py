"""Score results for pairs of photos; conf/evaluate.yaml lists every argument."""

from hydra.utils import instantiate

from photostyle.conf.entry_point import entry_point


@entry_point("evaluate")
def main(config):
    """Measure or compare results."""
    print(instantiate(config.evaluation))


if __name__ == "__main__":
    main()
