"""Stylise photos from the command line; conf/stylize.yaml lists every argument."""

from hydra.utils import instantiate

from photostyle.conf.entry_point import entry_point


@entry_point("stylize")
def main(config):
    """Stylise a photo or many."""
    report = instantiate(config.method)
    print(report)
    return report.exit_code


if __name__ == "__main__":
    main()
