"""Serve the web page; conf/app.yaml lists every argument."""

from hydra.utils import instantiate

from photostyle.conf.entry_point import entry_point


@entry_point("app")
def main(config):
    """Serve the page until Ctrl-C."""
    instantiate(config.app)


if __name__ == "__main__":
    main()
