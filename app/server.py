"""The page's server: where it listens, what it keeps and for how long."""

import logging
import os
import socket
import threading
from contextlib import closing, suppress
from pathlib import Path

from photostyle.app.session import warm_up
from photostyle.app.settings import Settings
from photostyle.data import find_photos
from photostyle.data.held_files import temporary_folder
from photostyle.data.paths import reason_of
from photostyle.ops.errors import ArgumentError, check_whole

LOCAL = ("127.0.0.1", "localhost")
EXAMPLES = Path(__file__).parents[1] / "examples"


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    user: str | None = None,
    password: str | None = None,
    examples: str | Path | None = None,
    max_megabytes: int,
    people: int,
    keep_minutes: int,
) -> None:
    """Serve the page until Ctrl-C; what it wrote is deleted then, after a kill when it next starts.

    Args:
        settings: of the results.
        host, port: where to listen.
        user, password: asked for, if given; required where others can reach the page.
        examples: folder of photos to pick from; ``None``: those of the checkout, if there are any.
        max_megabytes: refuse larger files.
        people: how many sessions are kept.
        keep_minutes: how long files are.

    Raises:
        ArgumentError: for values other than these, a port that is in use, and without Gradio.
    """
    check_whole("port", port, 1, 65535)
    for argument, value in (
        ("max_megabytes", max_megabytes), ("people", people), ("keep_minutes", keep_minutes)
    ):  # fmt: skip
        check_whole(argument, value, 1)
    if not isinstance(host, str) or ":" in host:
        raise ArgumentError("host", host, "give a name or an IPv4 address; IPv6 is not served")
    _check_access(host, user, password)
    photos = _examples(examples)
    _check_free(host, port)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # by which Gradio looks whether it runs
    with temporary_folder() as folder:
        page = _page(settings, folder, photos, keep_minutes)
        warm_up(settings)
        page.blocks.queue(max_size=4 * people)
        page.blocks.launch(
            server_name=host,
            server_port=port,
            auth=None if user is None else (str(user), str(password)),
            max_file_size=max_megabytes * 1_000_000,
            state_session_capacity=people,
            allowed_paths=[str(photo) for photo in photos],
            prevent_thread_lock=True,
            share=False,
            ssr_mode=False,
            quiet=True,
            **page.looks,
        )
        print(f"http://{host}:{port} (Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        page.blocks.close(verbose=False)


def _check_access(host: str, user: str | None, password: str | None) -> None:
    for argument, value in (("user", user), ("password", password)):
        if value is None and (host not in LOCAL or (user, password) != (None, None)):
            expected = f"required with host={host}; give user and password"
            if host in LOCAL:
                expected = "user and password go together; give both or neither"
            raise ArgumentError(argument, None, expected)


def _check_free(host: str, port: int) -> None:
    with closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except socket.gaierror as error:
            raise ArgumentError("host", host, f"no such address: {reason_of(error)}") from error
        except OSError as error:
            expected = f"cannot be used at {host}: {reason_of(error)}; give another"
            raise ArgumentError("port", port, expected) from error


def _examples(folder: str | Path | None) -> list[Path]:
    if folder is None and not EXAMPLES.is_dir():
        return []
    folder = Path(folder or EXAMPLES)
    return [folder / name for name in find_photos(folder, argument="examples")]


def _page(settings: Settings, folder: Path, examples: list[Path], keep_minutes: int):
    # Gradio reads these when it is imported, or later.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "page")
    try:
        from photostyle.app.page import Page
    except ModuleNotFoundError as error:
        expected = "not installed; do so with: pip install 'photostyle[app]'"
        raise ArgumentError("gradio", None, expected) from error
    sessions = folder / "sessions"
    sessions.mkdir()
    return Page(settings, sessions, examples, keep_minutes)
