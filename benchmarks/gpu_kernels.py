"""What a call does on the device, kernel by kernel, without what it waits for."""

from collections import defaultdict
from collections.abc import Callable

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_operator import DEVICE


def kernels(call: Callable[[], object]) -> dict[str, list[float]]:
    """The seconds of each kernel's runs, by name; without a GPU of PyTorch's functions."""
    activity, kind = ProfilerActivity.CUDA, DeviceType.CUDA
    if DEVICE == "cpu":
        activity, kind = ProfilerActivity.CPU, DeviceType.CPU
    with profile(activities=[activity]) as profiler:
        call()
    runs = defaultdict(list)
    for event in profiler.events():
        if event.device_type == kind and not event.is_user_annotation:
            runs[event.name].append(event.time_range.elapsed_us() / 1e6)
    return runs


def kernel_seconds(call: Callable[[], object]) -> float:
    """Of all its kernels together."""
    return sum(map(sum, kernels(call).values()))
