"""Train a network: on one CPU, one GPU, or many on many machines, with one command."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from photostyle.data import find_photos, load_image, load_photo
from photostyle.data.held_files import locked
from photostyle.data.paths import check_folder
from photostyle.data.training import TrainingPhotos
from photostyle.feedforward.checkpoint import Checkpoint, Checkpoints, check_same_settings
from photostyle.feedforward.contents import contents
from photostyle.feedforward.schedule import Intervals, Schedule
from photostyle.feedforward.style_network import UNIVERSAL, StyleNetwork, load_network
from photostyle.feedforward.training_objective import AnyStyle, OneStyle
from photostyle.feedforward.training_run import (
    MAY_DIFFER,
    NETWORK_FILE,
    TrainingReport,
    TrainingRun,
    tensors_fit,
)
from photostyle.feedforward.transform_net import TransformNet
from photostyle.feedforward.universal_net import UniversalNet
from photostyle.feedforward.validation import Validation
from photostyle.ops import ArgumentError, GuidedFilter, StyleObjective
from photostyle.ops.devices import PRECISIONS, has_bfloat16
from photostyle.ops.errors import check_choice, check_flag, check_whole

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu")


@dataclass(frozen=True)
class RunOptions:
    """Where and how a run computes.

    Attributes:
        size: long side in pixels of the style and of the validation photos.
        seed: of every random number.
        device: ``"auto"`` (the GPU of this process if there is one) or ``"cpu"``.
        precision: ``"float32"``, ``"bfloat16"`` (autocast), or ``"auto"``: bfloat16 on GPUs that
            have it.
        resume: go on from the newest checkpoint in the output; start if there is none.

    Raises:
        ArgumentError: for values other than these.
    """

    size: int = 384
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    resume: bool = False

    def __post_init__(self):
        check_flag("resume", self.resume)
        check_whole("size", self.size, 64)
        check_whole("seed", self.seed, 0)
        check_choice("device", self.device, DEVICES)
        check_choice("precision", self.precision, PRECISIONS)

    def accelerator(self) -> Accelerator:
        """The processes and the device that the run has, in its precision."""
        bfloat16 = self.precision == "bfloat16" or (
            self.precision == "auto"
            and self.device != "cpu"
            and torch.cuda.is_available()
            and has_bfloat16(torch.device("cuda"))
        )
        # Else a run before this one in the same process would decide on the device and precision.
        AcceleratorState._reset_state(reset_partial_state=True)
        return Accelerator(cpu=self.device == "cpu", mixed_precision="bf16" if bfloat16 else "no")


def train_network(
    style: str | Path | None = None,
    output: str | Path | None = None,
    *,
    photos: Callable[..., TrainingPhotos],
    styles: Callable[..., TrainingPhotos] | None = None,
    region_share: float = 0.0,
    network: Callable[..., TransformNet | UniversalNet] = TransformNet,
    objective: StyleObjective,
    guided_filter: GuidedFilter | None,
    colour_map: bool = True,
    schedule: Schedule,
    intervals: Intervals,
    validation: str | Path | None = None,
    init: str | Path | None = None,
    options: RunOptions = RunOptions(),
    settings: dict | None = None,
    published: dict | None = None,
) -> TrainingReport:
    """Train a network that gives photos the colours and light of one style photo, or of any.

    Args:
        style: an image file; ``None`` for a network of any style.
        output: folder for ``network.safetensors``, ``checkpoints/`` and ``logs/`` (TensorBoard);
            ``None`` for ``outputs/<style>`` or ``outputs/universal``.
        photos: `data.TrainingPhotos` with all but the seed and the processes.
        styles: the same for the style photos of a network of any style.
        region_share: of its batches, see `AnyStyle`; 0 for one style.
        network: `feedforward.TransformNet` with all but the style, or
            `feedforward.UniversalNet`.
        objective: content, style and photorealism losses.
        guided_filter: ``None`` for a painterly network, Johnson et al. (2016).
        colour_map: whether the network adds a map of the photo's colours, in training and when it
            is applied, see `feedforward.StyleNetwork`.
        schedule, intervals: see there.
        validation: folder of validation photos; ``None``: those that ``photos`` holds out.
        init: a network, as `feedforward.load_network` takes it, whose weights are the first ones;
            its style may be another. ``None``: random weights.
        options: see there.
        settings: nested dict of plain values that a resumed run must share, but for ``steps``,
            and for ``init``, which counts at the start alone. Of the style and of the encoder's
            weights it must share the content; their files may be others. ``None``: the network's
            architecture alone.
        published: nested dict of plain values for the network's file.

    Returns:
        A report. SIGINT and SIGTERM, in the main thread, and gradients that stay non-finite end
        early, with a checkpoint.

    Raises:
        ArgumentError: for values other than these, an output that holds another run, in which
            another process trains, or that cannot be written to, and a checkpoint of other
            settings, of more steps or of another number of processes. While it trains, a checkpoint
            that cannot be written is left out with a warning; at the end, one line tells what is
            missing in the output, and where the network is.
    """
    check_flag("colour_map", colour_map)
    if not any(objective.weights.values()):
        expected = "give a weight above 0, to this or to another loss"
        raise ArgumentError("style_weight", objective.weights["style"], expected)
    if (getattr(network, "func", network) is UniversalNet) != (styles is not None):
        expected = "UniversalNet is for styles, a folder, any other for style, a photo"
        raise ArgumentError("network", getattr(network, "func", network).__name__, expected)
    if style is None and styles is None:
        raise ArgumentError("style", style, "required; give an image file")
    if styles is None and region_share:
        expected = "a network of one style has no regions; leave it out"
        raise ArgumentError("region_share", region_share, expected)
    if style is not None and styles is not None:
        raise ArgumentError("style", style, "styles are given, too; leave one out")
    style_image = None
    if styles is None:
        photo = load_photo(style, argument="style")
        if not photo.is_opaque:
            raise ArgumentError("style", style, "is transparent in part; give a photo that is not")
        style_image = photo.tensor(options.size)
    name = UNIVERSAL if style_image is None else Path(style).stem
    output = Path(output or Path("outputs") / name)
    check_folder("output", output)
    accelerator = options.accelerator()
    lock = locked(output, "output") if accelerator.is_main_process else nullcontext()
    # The caller's random numbers go on as if nothing had been.
    with lock, torch.random.fork_rng(devices=[]):
        checkpoints = Checkpoints(output / "checkpoints", intervals.keep)
        holds_run = checkpoints.folder.exists() or (output / NETWORK_FILE).exists()
        if holds_run and not options.resume:
            expected = "holds a run; go on with resume=true, or give another folder"
            raise ArgumentError("output", output, expected)

        share = {
            "process_index": accelerator.process_index,
            "process_count": accelerator.num_processes,
        }
        # With photos of their own to measure on, all of these are trained with.
        held_out = {} if validation is None else {"held_out": 0}
        streams = [photos(seed=options.seed, **share, **held_out)]
        if styles is not None:
            # Of another seed: a photo must not always meet the same style, itself for one.
            streams.append(_style_stream(styles, seed=options.seed + 1, **share))
        validation_photos = streams[0].held_out if validation is None else _photos_in(validation)
        if not validation_photos:
            logger.info("no validation photos: the last weights are exported")

        torch.manual_seed(options.seed)
        net = network(**({} if style_image is None else {"style": style_image}))
        if settings is None:
            settings = {"network": {k: _plain(v) for k, v in net.architecture.items()}}
        # Of shards each worker reads its own.
        workers = [stream.workers for stream in streams if stream.size is None]
        settings = settings | ({"workers": workers} if workers else {})

        def fits(found: Checkpoint) -> bool:
            # Under other settings, which are not damage, the tensors may be others as well.
            check_same_settings(settings, found.settings, MAY_DIFFER)
            return tensors_fit(net, found.tensors)

        checkpoint = checkpoints.newest(fits) if options.resume else None
        if init is not None and checkpoint is None:
            _begin_with(net, init)
        objective = objective.to(accelerator.device)
        if style_image is not None:
            validation_styles = [style_image.to(accelerator.device)]
            with accelerator.autocast():
                losses = OneStyle(objective, net, validation_styles[0])
        else:
            apart = streams[1].held_out or validation_photos  # shards hold none out
            validation_styles = held_out_styles(apart, options.size, accelerator.device)
            losses = AnyStyle(objective, net, region_share)
        run = TrainingRun(
            accelerator,
            StyleNetwork(net, guided_filter, name, published or {}, colour_map=colour_map),
            losses,
            schedule,
            Validation(validation_photos, validation_styles, options.size, losses)
            if validation_photos and validation_styles
            else None,
            output,
            checkpoints,
            settings,
            contents(style_image, objective.encoder, *(stream.names for stream in streams)),
        )
        # What these refuse shows before anything is written.
        side = min(options.size, streams[0].crop)
        black = torch.zeros(1, 3, side, side, device=accelerator.device)
        with torch.no_grad():
            losses(losses.example(black, black), run.ema.filtered(black, black, black))
        if checkpoint is not None:
            run.restore(checkpoint, style)
        elif options.resume:
            logger.info("no checkpoint in %s yet; starting", output)
        # Everyone has looked at the folder by now.
        accelerator.wait_for_everyone()
        return run.train(streams, intervals)


def _style_stream(styles: Callable[..., TrainingPhotos], **arguments) -> TrainingPhotos:
    try:
        return styles(**arguments)
    except ArgumentError as error:
        argument = "styles" if error.argument == "root" else error.argument
        raise ArgumentError(argument, error.value, error.expected) from error


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def held_out_styles(held_out: list[Path], size: int, device: torch.device) -> list[Tensor]:
    """Styles to measure with: those held out, but for the last one first.

    Where styles are the photos, too, none of several is given itself. In the place of one that
    cannot be read is the one before it.

    Args:
        held_out: their files.
        size: their long side in pixels, at most.
        device: to put them on.

    Returns:
        (1, 3, H, W) each, values in [0, 1], one for each file; none, if none can be read.
    """
    if len(held_out) == 1:
        logger.warning("%s is the only style to measure with, be it its own photo's", *held_out)
    styles = []
    for path in [*held_out[-1:], *held_out[:-1]]:
        try:
            styles.append(load_image(path, size, argument="styles").to(device))
        except ArgumentError as error:
            logger.warning("no style to measure with: %s", error)
            styles.append(None)
    if all(style is None for style in styles):
        return []
    before = (styles[place::-1] + styles[:place:-1] for place in range(len(styles)))
    return [next(style for style in each if style is not None) for each in before]


def _begin_with(net: TransformNet, init: str | Path) -> None:
    """Give a network the weights of another, but not its style's colour moments."""
    try:
        other = load_network(init).net
    except ArgumentError as error:
        raise ArgumentError("init", init, error.expected) from error
    if type(other) is not type(net):
        expected = "a network of any style and one of a single style do not start from each other"
        raise ArgumentError("init", init, expected)
    for name in ("width", "blocks"):
        if getattr(other, name) != getattr(net, name):
            expected = f"has network.{name}={getattr(other, name)}; give the same"
            raise ArgumentError("init", init, expected)
    net.load_state_dict(dict(other.named_parameters()), strict=False)


def _photos_in(folder: str | Path) -> list[Path]:
    try:
        return [Path(folder) / name for name in find_photos(folder)]
    except ArgumentError as error:
        raise ArgumentError("validation", folder, "give a folder of photos") from error
