"""Odd values for every key of every command: ``python -m tests.fuzz.command_line --count 5000``.

Each must end as what it asks for, or as one line and exit code 2. What takes long, training and
serving, ends where it would begin; the optimiser after one step.
"""

import argparse
import contextlib
import io
import logging
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import Mock, patch
from urllib.error import URLError

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from PIL import Image

from photostyle import conf, evaluate, stylize, train
from photostyle.app import __main__ as app
from photostyle.conf.overrides import INNER
from photostyle.data.cube_file import save_cube
from photostyle.ops.lut import Lut

SECONDS = 60
"""After which a call hangs."""

_PAIR = ("content=photo.png", "style=light.png", "output=out.png", "overwrite=true", "size=32")
_QUICK = ("device=cpu", "masks=none")
_TRAINING = (
    "data.root=photos", "output=run", "crop=64", "size=64", "batch_size=1", "data.workers=1",
    "data.held_out=0", "device=cpu", "backend=cpu", "network.width=4", "network.blocks=1",
    "objective.style_layers=[relu1_1]", "objective.layer_weights=[1]",
)  # fmt: skip
COMMANDS = {
    "optimize": (
        stylize.main,
        (
            *_PAIR, *_QUICK, "optimizer.steps=[1]",
            "objective.style_layers=[relu1_1]", "objective.layer_weights=[1]",
        ),
    ),
    "colour_transfer": (stylize.main, ("method=colour_transfer", *_PAIR, *_QUICK)),
    "feedforward": (stylize.main, ("method=feedforward", *_PAIR, *_QUICK)),
    "lut": (stylize.main, ("method=lut", "lut=look.cube", _PAIR[0], *_PAIR[2:])),
    "train": (train.main, ("style=light.png", *_TRAINING)),
    "train universal": (train.main, ("kind=universal", "styles=photos", *_TRAINING)),
    "evaluate": (
        evaluate.main,
        ("results=results", "pairs=pairs", "output=scores", "overwrite=true", "size=64"),
    ),
    "app": (app.main, ("port=17861", "device=cpu")),
}  # fmt: skip
"""By name: the entry point and the words of a call that succeeds."""
CONFIGS = {stylize.main: "stylize", train.main: "train", evaluate.main: "evaluate", app.main: "app"}

VALUES = (
    "", "null", "true", "no", "0", "-1", "1", "3", "64", "0.5", "1.5", "auto", "cpu", "universal",
    "-0.0", "nan", "inf", "-inf", "1e400", "1e-400", "1000000", f"1{'0' * 30}", "0x10", "1_0",
    "[]", "[1]", "[1,2,3]", "[null]", "[nan]", "[a,b]", "[[1,2],[3]]", "[-1,1e30]",
    "{}", "{a:1}", "{radius:a}", "{_target_:os.getcwd}",
    "abc", "a b", "'a b'", "a,b", "${size}", "${nowhere}", "${", "${oc.env:HOME}",
    "${oc.env:NONE}", "a${b", "é日", "\udcff", "x" * 5000, "x/../" * 1000, "\n", "\x1b[2J",
    "???", "~", "~root", "'", '"', "(", "range(3)", "choice(1,2)", "glob(*)", "$(ls)",
    "photo.png", "photos", ".", "/", "/dev/null", "http://localhost/a.png",
)  # fmt: skip
WORDS = ("{key}={value}", "+{key}={value}", "++{key}={value}", "{key}.more={value}", "~{key}")
"""How a key may be written; most are written as the first."""


@dataclass(frozen=True)
class Call:
    """What a command was called with, and how it ended."""

    command: str
    word: str
    code: int | None
    out: str
    err: str

    @property
    def fault(self) -> str | None:
        """What is wrong with the end, or ``None``."""
        errors = [line for line in self.err.splitlines() if line.startswith("error: ")]
        if self.code is None:
            return self.err.splitlines()[-1]
        if self.code == 2 and (len(errors), self.err.splitlines()[-1:]) != (1, errors):
            return f"exit code 2, and no single line: {self.err}"
        if self.code not in (0, 2, 130):
            return f"exit code {self.code}: {self.err}"
        return None


class Hangs(BaseException):
    """A call takes too long."""


def keys_of(command: str) -> list[str]:
    """All keys: sections, their keys, and groups of files."""
    main, words = COMMANDS[command]
    name = {stylize.main: "stylize", train.main: "train", evaluate.main: "evaluate"}.get(
        main, "app"
    )
    GlobalHydra.instance().clear()
    folder = str(Path(conf.__file__).parent.resolve())
    with initialize_config_dir(folder, version_base="1.3"):
        config = compose(name, list(words), return_hydra_config=True)
    groups = [group for group in config.hydra.runtime.choices if not group.startswith("hydra/")]
    GlobalHydra.instance().clear()
    values = OmegaConf.to_container(config)
    del values["hydra"]
    return sorted({*groups, *_keys(values)})


def _keys(config: dict, prefix: str = ""):
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")


def make_files(folder: Path) -> None:
    """What the commands read."""
    y, x = np.mgrid[0:72, 0:80]
    pixels = np.stack([3 * x, 3 * y, 120 + 60 * np.sin(x / 7)], -1).astype(np.uint8)
    for name in ("photos", "results", "pairs/01"):
        (folder / name).mkdir(parents=True)
    names = ("photo.png", "photos/a.png", "photos/b.png", "results/01.png", "pairs/01/content.png")
    for name in names:
        Image.fromarray(pixels).save(folder / name)
    for name in ("light.png", "pairs/01/style.png"):
        Image.fromarray(pixels[:, :, ::-1] // 2).save(folder / name)
    save_cube(
        folder / "look.cube", Lut(np.linspace(0, 1, 8, dtype=np.float32)[:, None].repeat(3, 1))
    )


@contextlib.contextmanager
def bench(folder: Path):
    """A folder of files to be the current one and home; work ends where it begins."""
    make_files(folder)
    refuse = Mock(side_effect=URLError("no network"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        stack.enter_context(patch.dict(os.environ, {"HOME": str(folder)}))
        for function, stand_in in (
            ("data.training.stream.start_server", Mock()),
            ("feedforward.training_run.TrainingRun.train", Mock(side_effect=KeyboardInterrupt)),
            ("app.server._page", Mock(side_effect=KeyboardInterrupt)),
            ("optimize.callbacks.ProgressBar.__call__", Mock(side_effect=KeyboardInterrupt)),
        ):
            stack.enter_context(patch(f"photostyle.{function}", stand_in))
        stack.enter_context(patch("torch.hub.download_url_to_file", refuse))
        yield


def call(command: str, word: str) -> Call:
    """Call a command with one word more, in the place of its own for the same key."""
    main, words = COMMANDS[command]
    key = word.lstrip("+").partition("=")[0]
    words = [other for other in words if other.partition("=")[0] != key]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    root = logging.getLogger()
    handlers = root.handlers[:]
    ends = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    alarm = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(SECONDS)
    GlobalHydra.instance().clear()
    code = 0
    try:
        with (
            patch.object(sys, "argv", ["command", *words, word]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as exit_:
        code = exit_.code
    except (Exception, Hangs) as error:
        code = None
        err.write("".join(traceback.format_exception(error)[-3:]))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, alarm)
        for number, handler in ends.items():
            signal.signal(number, handler)
        root.handlers[:] = handlers
    texts = (stream.buffer.getvalue().decode(errors="replace") for stream in (out, err))
    return Call(command, word, code, *texts)


def _hang(*_):
    raise Hangs(f"more than {SECONDS} s")


def some_word(keys: list[str], rng: random.Random) -> str:
    """A key in some spelling, and a value; seldom of a section that has no arguments."""
    spelling = rng.choices(WORDS, (20, 1, 1, 2, 1))[0]
    weights = [1 if INNER.intersection((key, key.partition(".")[0])) else 9 for key in keys]
    return spelling.format(key=rng.choices(keys, weights)[0], value=rng.choice(VALUES))


def main() -> int:
    """Prints a table, and faults on stderr; returns 1 where there were any."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.command_line", description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="calls in all")
    parser.add_argument("--seed", type=int, default=0, help="of keys and values")
    parser.add_argument("--command", action="append", choices=COMMANDS, help="all, where left out")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    commands = options.command or [*COMMANDS]
    keys = {command: keys_of(command) for command in commands}
    ends = {command: Counter() for command in commands}
    with tempfile.TemporaryDirectory() as folder, bench(Path(folder)):
        for number in range(options.count):
            command = commands[number % len(commands)]
            found = call(command, some_word(keys[command], rng))
            if found.fault:
                print(f"{command} {found.word[:200]!r}: {found.fault[-2000:]}", file=sys.stderr)
            ends[command]["faults" if found.fault else found.code] += 1
    print("| command | keys | calls | taken | one line, exit code 2 | faults |")
    print("|---|---|---|---|---|---|")
    for command, count in ends.items():
        taken = count[0] + count[130]
        row = (command, len(keys[command]), count.total(), taken, count[2], count["faults"])
        print(f"| {' | '.join(map(str, row))} |")
    return int(any(count["faults"] for count in ends.values()))


if __name__ == "__main__":
    raise SystemExit(main())
