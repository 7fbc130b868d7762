"""How long people wait for the page: from a change in the browser to the picture that is shown.

python -m benchmarks.app_speed [--repeat 5] [--size 512]

Needs Gradio, Playwright and Chromium. The server and the browser share the machine. *Server* is the
server's time on all cores, *requests* are the browser's, both until a second after the picture.
"""

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.common import machine, table

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(photo.stem for photo in EXAMPLES.glob("*.jpg"))
TICK = os.sysconf("SC_CLK_TCK")

# Resolves once the picture on the right is another one, and is there.
NEXT_PICTURE = """before => new Promise(done => {
    const look = () => {
        const images = [...document.querySelectorAll('#result img')];
        const last = images.at(-1);
        const shown = images.length == 2 && last.src != before && last.complete;
        shown ? done(last.src) : requestAnimationFrame(look);
    };
    look();
})"""


@contextmanager
def served(*words: str):
    """A server of its own process: its address and its number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "photostyle.app", f"port={port}", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            server.stdout.readline()  # it is there then
            yield f"http://127.0.0.1:{port}", server.pid
        finally:
            server.send_signal(signal.SIGINT)


class Watch:
    """What changes of a page cost.

    Args:
        page: in the browser.
        server: the server's process.
    """

    def __init__(self, page: Page, server: int):
        self.page = page
        self.server = server
        self.picture = ""
        self.requests = 0
        page.on("request", self._count)
        page.context.new_cdp_session(page).send("Network.setCacheDisabled", {"cacheDisabled": True})

    def _count(self, _) -> None:
        self.requests += 1

    def measure(self, change: Callable[[], object]) -> tuple[float, float, int]:
        """Seconds to the next picture, the server's seconds, and requests."""
        self.requests = 0
        start, used = time.perf_counter(), self._server_seconds()
        change()
        self.next_picture()
        seconds = time.perf_counter() - start
        self.page.wait_for_timeout(1000)  # until all is quiet
        return seconds, self._server_seconds() - used, self.requests

    def next_picture(self) -> None:
        """Wait for it."""
        self.picture = self.page.evaluate(NEXT_PICTURE, self.picture)

    def _server_seconds(self) -> float:
        fields = Path(f"/proc/{self.server}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK


def pick(page: Page, argument: str, name: str) -> None:
    page.click(f"#{argument}_examples button >> nth={NAMES.index(name)}")


def drop(page: Page, argument: str, name: str) -> None:
    page.set_input_files(f"#{argument} input[type=file]", EXAMPLES / f"{name}.jpg")


def clear(page: Page, argument: str) -> None:
    """Nothing can be dropped where a file is already."""
    page.click(f"#{argument} button[aria-label=Clear]")
    page.wait_for_selector("#result img", state="detached")


def set_strength(page: Page, strength: float) -> None:
    page.fill("#strength input[type=number]", f"{strength:g}")
    page.press("#strength input[type=number]", "Enter")


def rows(page: Page, server: int, repeat: int) -> Iterator[list[str]]:
    """What each kind of change costs, in the median."""
    watch = Watch(page, server)
    pick(page, "content", NAMES[0])
    watch.next_picture()
    watch.measure(lambda: pick(page, "style", NAMES[-1]))
    for argument, name in (("content", "photo"), ("style", "style photo")):
        for way, change in (("an example", pick), ("a file", drop)):
            results = []
            for photo in islice(cycle(NAMES[1:]), repeat):
                if change is drop:
                    clear(page, argument)
                    watch.picture = ""
                results.append(watch.measure(partial(change, page, argument, photo)))
            yield [f"{name}, {way}", *medians(results)]
    strengths = (0.9 - 0.05 * number for number in range(repeat))
    results = [watch.measure(partial(set_strength, page, strength)) for strength in strengths]
    yield ["strength", *medians(results)]


def medians(results: list[tuple]) -> list[str]:
    seconds, used, requests = map(statistics.median, zip(*results, strict=True))
    return [f"{seconds:.2f}", f"{used:.2f}", f"{requests:g}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="of the preview, in pixels")
    arguments = parser.parse_args()
    with served(f"size={arguments.size}") as (address, server), sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        page.wait_for_selector("#content input[type=file]", state="attached")
        found = []
        for row in rows(page, server, arguments.repeat):
            print(*row, sep="\t", file=sys.stderr, flush=True)
            found.append(row)
        browser.close()
    print(f"{machine()}\n")
    print(table(["change", "seconds", "server, s", "requests"], found))


if __name__ == "__main__":
    main()
