"""The page's layout and what its parts do; what they do it with is `app.session`."""

import functools
import html
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import numpy as np

from photostyle.app.regions import REGIONS
from photostyle.app.session import LONGEST_NAME, Session
from photostyle.app.settings import PRESETS, Settings
from photostyle.data.masks import COLOURS
from photostyle.feedforward import shipped_networks
from photostyle.feedforward.style_network import UNIVERSAL
from photostyle.ops.errors import ArgumentError

COMPUTE = {"concurrency_id": "compute", "concurrency_limit": 1}
"""One at a time: two would each take twice as long, and twice the memory."""

QUICK = {"concurrency_id": "quick", "concurrency_limit": 4, "show_progress": "hidden"}
"""What must not wait for somebody's optimiser."""

PALETTE = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in COLOURS]

STYLE = """
.gradio-container {max-width: 1200px !important; margin: auto}
#file {display: none}
#command textarea {font-family: ui-monospace, monospace; font-size: 0.85em}
progress {width: 100%; height: 0.8em}
.examples .grid-wrap {padding: 4px; min-height: 0}
.examples .grid-container {grid-template-columns: repeat(6, minmax(0, 1fr)) !important; gap: 4px}
.examples .thumbnail-lg {width: 100%; height: 44px; aspect-ratio: auto}
footer {display: none !important}
.name {border-left: 14px solid !important}
.name :is(input, textarea) {border: 1px solid var(--neutral-300) !important}
@media (max-width: 640px) {#style_photo {display: none}}
""" + "".join(
    f"#name_{region} {{border-color: {colour} !important}}\n"
    for region, colour in zip(REGIONS, PALETTE, strict=True)
)

# The file has been written and its link is on the page a moment later.
CLICK_LINK = "() => setTimeout(() => document.querySelector('#file').click(), 300)"


class Page:
    """The page, for any number of people.

    Args:
        settings: of the results.
        folder: for the sessions' folders.
        examples: photos to pick from.
        keep_minutes: how long files are kept.

    Attributes:
        blocks: what can be launched, with `looks`.
    """

    def __init__(self, settings: Settings, folder: Path, examples: list[Path], keep_minutes: int):
        seconds = 60 * keep_minutes
        self.examples = examples
        self.blocks = gr.Blocks(
            title="photostyle", analytics_enabled=False, delete_cache=(min(seconds, 600), seconds)
        )
        with self.blocks:
            self.session = gr.State(Session(settings, folder), delete_callback=Session.close)
            self._build()
            self._connect()

    @property
    def looks(self) -> dict:
        """What Gradio wants to be told at launch."""
        fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
        return {"theme": gr.themes.Soft(**fonts), "css": STYLE, "footer_links": []}

    # -------------------------------------------------------------------------------- layout

    def _build(self) -> None:
        gr.Markdown("# photostyle\nYour photo with another photo's light, colour and mood.")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                self.content, self.content_examples = self._source("Photo", "content")
                self.style, self.style_examples = self._source("Style", "style")
                self.style_photo = gr.Image(
                    label="Style",
                    interactive=False,
                    visible=False,
                    height=160,
                    format="jpeg",
                    buttons=[],
                    elem_id="style_photo",
                )
                others = [name for name in shipped_networks() if name != UNIVERSAL]
                choices = [("the style photo", UNIVERSAL), *((name, name) for name in others)]
                self.network = gr.Dropdown(
                    choices, value=UNIVERSAL, label="Style of", elem_id="network"
                )
            with gr.Column(scale=3, min_width=320):
                self.slider = gr.ImageSlider(
                    label="Before and after", format="jpeg", interactive=False, elem_id="result",
                    buttons=["fullscreen"], max_height=560,
                )  # fmt: skip
                self.strength = gr.Slider(
                    0, 1, value=1, step=0.01, label="Strength", elem_id="strength", buttons=[]
                )
                with gr.Row():
                    self.preset = gr.Radio(
                        PRESETS, value=PRESETS[1], label="Finer: how much style",
                        elem_id="preset", min_width=330,
                    )  # fmt: skip
                    self.finer = gr.Button("Finer", elem_id="finer", min_width=90)
                    self.stop = gr.Button("Stop", elem_id="stop", min_width=90, interactive=False)
                    self.download = gr.Button(
                        "Download", variant="primary", elem_id="download", min_width=120
                    )
                    self.lut = gr.Button("LUT", elem_id="lut", min_width=90)
                self.note = gr.HTML(elem_id="note")
                self.command = gr.Textbox(
                    label="As a command line", elem_id="command",
                    interactive=False, lines=1, max_lines=4, buttons=["copy"],
                )  # fmt: skip
                self.file = gr.DownloadButton(elem_id="file")
        with gr.Accordion("Regions", open=False, elem_id="regions") as self.accordion:
            gr.Markdown(
                "What has one colour in the photo takes its style from what has that colour in the "
                "style photo. Paint in one of the colours, or merge two, and the result follows. "
                "Below, give a colour a name of your own."
            )
            with gr.Row():
                self.editors = {
                    argument: gr.ImageEditor(
                        label=label, type="numpy", sources=(), transforms=(), layers=False,
                        format="jpeg", buttons=[], elem_id=f"{argument}_regions",
                        brush=gr.Brush(
                            default_size=24, colors=PALETTE, default_color=PALETTE[0],
                            color_mode="fixed",
                        ),
                        min_width=320, height=400, interactive=True,
                    )
                    for argument, label in (("content", "Photo"), ("style", "Style"))
                }  # fmt: skip
            with gr.Row():
                self.names = {
                    region: gr.Textbox(
                        region, show_label=False, container=False, max_length=LONGEST_NAME,
                        elem_id=f"name_{region}", elem_classes="name", min_width=100,
                    )
                    for region in REGIONS
                }  # fmt: skip
            with gr.Row():
                self.use = gr.Button("Use what is painted", elem_id="use", min_width=160)
                self.region = gr.Dropdown(
                    REGIONS, value=REGIONS[1], label="Merge", elem_id="region", min_width=100
                )
                self.into = gr.Dropdown(
                    REGIONS, value=REGIONS[0], label="into", elem_id="into", min_width=100
                )
                self.merge = gr.Button("Merge", elem_id="merge", min_width=90)
                self.reset = gr.Button("Automatic regions", elem_id="reset", min_width=160)
            self.masks = gr.File(
                label="Masks, for the command line", file_count="multiple", interactive=False,
                visible=False, elem_id="masks",
            )  # fmt: skip

    def _source(self, label: str, argument: str) -> tuple[gr.File, gr.Gallery | None]:
        photo = gr.File(label=label, height=110, elem_id=argument)
        if not self.examples:
            return photo, None
        gallery = gr.Gallery(
            [str(path) for path in self.examples], columns=6, height=56, show_label=False,
            allow_preview=False, interactive=False, buttons=[], object_fit="cover",
            elem_classes="examples", elem_id=f"{argument}_examples",
        )  # fmt: skip
        return photo, gallery

    # ------------------------------------------------------------------------------- reactions

    def _connect(self) -> None:
        result = [self.slider, self.command, self.note, self.style_photo]
        regions = [*self.editors.values(), self.masks]
        everything = [*result, *regions]
        changed = [self.network, self.strength]
        for argument, photo, examples in (
            ("content", self.content, self.content_examples),
            ("style", self.style, self.style_examples),
        ):
            self._on(photo.upload, _stop, [], [], QUICK)
            taken, inputs = functools.partial(_take, argument), [photo, *changed]
            self._on(photo.upload, taken, inputs, everything, COMPUTE)
            self._on(photo.clear, _stop, [], [], QUICK)
            dropped = functools.partial(_drop, argument)
            self._on(photo.clear, dropped, changed, everything, COMPUTE)
            if examples is None:
                continue
            self._on(examples.select, _stop, [], [], QUICK)
            picked = _picker(argument, self.examples)
            self._on(examples.select, picked, changed, [photo, *everything], COMPUTE)
        self._on(self.network.input, _stop, [], [], QUICK)
        self._on(self.network.input, _pass, changed, result, COMPUTE)

        blended = [self.slider, self.command]
        self._on(
            self.strength.input, _blend, [self.strength], blended, QUICK | {
                "trigger_mode": "always_last"
            },
        )  # fmt: skip

        buttons = [self.finer, self.stop]
        begun = self._on(self.finer.click, _begin, [], [self.note, *buttons], QUICK)
        done = self._on(
            begun.success, _refine, [self.preset, self.strength], result[:3],
            COMPUTE | {"show_progress": "hidden"},
        )  # fmt: skip
        self._on(done.then, _end, [], buttons, QUICK)
        self._on(self.stop.click, _stop, [], [], QUICK)

        written = self._on(self.download.click, _write, [self.strength], [self.file], COMPUTE)
        written.success(None, js=CLICK_LINK)
        outputs = [self.file, self.note, self.command]
        written = self._on(self.lut.click, _write_lut, [self.strength], outputs, COMPUTE)
        written.success(None, js=CLICK_LINK)

        self._on(self.accordion.expand, _open_regions, [], regions, COMPUTE)
        self._on(self.accordion.collapse, _close_regions, [], [], QUICK)
        for event, function, inputs in (
            (self.use.click, _paint, [*self.editors.values()]),
            (self.merge.click, _merge, [self.region, self.into]),
            (self.reset.click, _reset, []),
        ):
            done = self._on(event, function, inputs, regions, COMPUTE)
            self._on(done.success, _pass, changed, result, COMPUTE)
        for region, name in self.names.items():
            left = functools.partial(gr.on, [name.submit, name.blur])
            outputs = [name, self.region, self.into]
            self._on(left, functools.partial(_rename, region), [name], outputs, QUICK)

    def _on(self, event: Callable, function: Callable, inputs: list, outputs: list, options: dict):
        """Call a function with the session first; what the user got wrong is shown on the page."""
        return event(
            _shown(function), [self.session, *inputs], outputs, api_visibility="private", **options
        )


def _shown(function: Callable) -> Callable:
    """A function whose `ArgumentError` is a message on the page."""

    def message(error: ArgumentError) -> gr.Error:
        name = {"content": "photo"}.get(error.argument, error.argument)
        value = "" if error.value is None else f"={error.value}"
        text = html.escape(f"{name}{value}: {error.expected}")
        return gr.Error(text, title="", print_exception=False)

    if function is _refine:

        def steps(*arguments):
            try:
                yield from function(*arguments)
            except ArgumentError as error:
                raise message(error) from error

        return steps

    @functools.wraps(function)  # Gradio looks at what it takes
    def call(*arguments):
        try:
            return function(*arguments)
        except ArgumentError as error:
            raise message(error) from error

    return call


def _picker(argument: str, examples: list[Path]) -> Callable:
    """What takes the example that has been picked."""

    def pick(session: Session, network: str, strength: float, event: gr.SelectData):
        path = str(examples[event.index])
        return path, *_take(argument, session, path, network, strength)

    return pick


def _take(argument: str, session: Session, path: str, network: str, strength: float):
    session.take(argument, path)
    return *_pass(session, network, strength), *_regions(session)


def _drop(argument: str, session: Session, network: str, strength: float):
    session.drop(argument)
    return *_pass(session, network, strength), *_regions(session)


def _pass(session: Session, network: str, strength: float):
    session.choose(network)
    if not session.is_ready:
        content = session.photo("content")
        before = None if content is None else (content, content)
        return before, "", "", _style_photo(session)
    session.one_pass()
    return *_blend(session, strength), "", _style_photo(session)


def _style_photo(session: Session):
    photo = session.photo("style")
    return gr.Image(photo, visible=photo is not None)


def _blend(session: Session, strength: float):
    if session.result is None:
        return gr.skip(), gr.skip()
    return (
        (session.photo("content"), session.result.picture(strength)),
        session.command(strength),
    )


def _begin(session: Session):
    session.ready_to_refine()
    return _bar(0, 1, "waiting"), gr.Button(interactive=False), gr.Button(interactive=True)


def _refine(session: Session, preset: str, strength: float):
    content = session.photo("content")
    for step in session.refine(preset):
        picture = session.picture(step, strength)
        text = f"step {step.number} of {step.total}, {step.size} pixels"
        yield (content, picture), gr.skip(), _bar(step.number, step.total, text)
    stopped = session.result.stopped
    text = ""
    if stopped:
        text = (
            f"Ended early ({stopped}): the best picture so far. The command below goes all the way."
        )
    yield *_blend(session, strength), text


def _end(session: Session):
    return gr.Button(interactive=True), gr.Button(interactive=False)


def _bar(value: int, total: int, text: str) -> str:
    return f'<label>{html.escape(text)}<progress max="{total}" value="{value}"></progress></label>'


def _stop(session: Session) -> None:
    session.stop()


def _write(session: Session, strength: float) -> str:
    return str(session.write(strength))


def _write_lut(session: Session, strength: float):
    saved = session.write_lut(strength)
    text = html.escape(f"{saved.path.name}: residual {saved.residual:.2f} ΔE*ab")
    return str(saved.path), text, session.command(strength, lut=True)


def _regions(session: Session):
    files = [str(path) for path in session.mask_files.values()]
    masks = gr.File(files or None, visible=bool(files))
    if not (session.shows_regions and session.has_both):
        return None, None, masks
    overlays = session.regions.overlays()
    return *({"background": overlay, "layers": [], "composite": None}
             for overlay in overlays.values()), masks  # fmt: skip


def _open_regions(session: Session):
    session.shows_regions = True
    return _regions(session)


def _close_regions(session: Session) -> None:
    session.shows_regions = False


def _paint(session: Session, content: dict | None, style: dict | None):
    for argument, editor in (("content", content), ("style", style)):
        for layer in editor["layers"] if editor else ():
            session.regions.paint(argument, np.asarray(layer))
    return _changed_regions(session)


def _merge(session: Session, region: str, into: str):
    session.regions.merge(region, into)
    return _changed_regions(session)


def _changed_regions(session: Session):
    if names := html.escape(", ".join(session.unmatched())):
        gr.Info(f"{names}: not in the style photo, takes the style of the whole of it")
    return _regions(session)


def _reset(session: Session):
    session.regions.reset()
    return _regions(session)


def _rename(region: str, session: Session, name: str):
    session.rename(region, name)
    choices = [(name, region) for region, name in session.names.items()]
    return session.names[region], gr.Dropdown(choices=choices), gr.Dropdown(choices=choices)
