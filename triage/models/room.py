"""What a host does to fit into its device: threads, memory, smaller pieces when it is full."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING

from triage.models.tensors import ModelInput, ModelOutput

if TYPE_CHECKING:
    from triage.models.runners import Runner

_FULL = ("out of memory", "not enough memory", "can't allocate memory")


def run_within_memory(runner: Runner, model_input: ModelInput) -> tuple[ModelOutput, str]:
    """Run the model; where the device is full, with half as many windows at once, down to one.

    Returns the output, and a remark where the number was lowered. The lower number stays: what was
    too much for this study is too much for the next.
    """
    remark = ""
    while True:
        try:
            return runner.run(model_input), remark
        except Exception as error:
            windows = int(getattr(runner, "window_batch", 1))
            if windows == 1 or not is_out_of_memory(error):
                raise
        runner.window_batch = windows // 2  # type: ignore[attr-defined]
        remark = f"from now on {windows // 2} windows go through the network at once"
        _free()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, or what caused it, is that the memory was full."""
    return any(
        isinstance(cause, MemoryError) or any(words in str(cause).lower() for words in _FULL)
        for cause in _causes(error)
    )


def device_memory(device: str) -> tuple[int, int, int] | None:
    """Return the bytes used and in all on a CUDA device, and those of this process; else None."""
    if not device.startswith("cuda"):
        return None
    import torch  # noqa: PLC0415 - it takes seconds, and is loaded by the runner

    free, total = torch.cuda.mem_get_info(device)
    return total - free, total, torch.cuda.memory_reserved(device)


def use_threads(count: int) -> None:
    """Let torch use so many threads: hosts that run side by side share the cores."""
    import torch  # noqa: PLC0415 - as above

    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _free() -> None:
    import torch  # noqa: PLC0415 - as above

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
