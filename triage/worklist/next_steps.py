"""What a person does about a run that failed or was refused, by what its reason says."""

from __future__ import annotations

_STEPS = (
    (
        ("model unavailable", "digest", "package"),
        "Register the package again with triage prepare, then run the study again.",
    ),
    (
        ("out of memory", "memory"),
        "Stop what else is on the device, or set runner.cpu_fallback, then run it again.",
    ),
    (
        ("took longer",),
        "Look whether the machine is overloaded; raise runner.time_limit_s if the model needs it.",
    ),
    (
        ("worker stopped", "worker was restarted", "worker is stopping"),
        "Look in the worker's log for why it ended, then run it again.",
    ),
    (
        ("ended by", "ended:", "exited with status", "channel"),
        "The model crashed: try it on this study with triage models try, and tell its makers.",
    ),
    (("purged", "deleted"), "Have the study sent again."),
    (
        ("could not be built",),
        "The flag stands; look in the worker's log, then run it again.",
    ),
    (("wait for a prior", "prior"), "See which priors came, in the study's history."),
)
_REFUSED = "Nothing, if the images are truly out of the model's scope; else see its manifest."
_FAILED = "Look in the worker's log, mend the cause, and run it again."


def next_step_of(state: str, reason: str) -> str:
    """Return what to do about a run in `state` for `reason`.

    >>> next_step_of("failed", "head-ct 1.0.0 took longer than 60 s and was stopped")[:40]
    'Look whether the machine is overloaded; '
    """
    if state == "refused":
        return "Have the study sent again." if "purged" in reason else _REFUSED
    said = reason.lower()
    return next((step for words, step in _STEPS if any(w in said for w in words)), _FAILED)
