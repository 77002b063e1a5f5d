"""What a DIMSE service adds to the receiver: SOP classes to accept, and who answers requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class DimseService:
    """A service that the receiver provides as an SCP, beside storage.

    Attributes:
        sop_classes: the abstract syntaxes that are accepted, each in the uncompressed transfer
            syntaxes.
        handlers: pynetdicom's (event, handler[, arguments]) that answer the requests.
    """

    sop_classes: tuple[str, ...]
    handlers: tuple[Any, ...]


def handlers_of(services: Iterable[DimseService]) -> list[Any]:
    """Return the handlers of all services, such that two services may answer one kind of request.

    Pynetdicom has one handler for each kind (N-CREATE is one, whatever is created), so that a
    request goes to the service which accepts the abstract syntax of its presentation context.
    """
    bound: dict[Any, list[tuple[DimseService, Any]]] = defaultdict(list)
    for service in services:
        for handler in service.handlers:
            bound[handler[0]].append((service, handler))
    handlers: list[Any] = []
    for event, several in bound.items():
        if len(several) == 1 or event.is_notification:
            handlers += [handler for _, handler in several]
        else:
            handlers.append((event, _by_abstract_syntax(several)))
    return handlers


def _by_abstract_syntax(several: list[tuple[DimseService, Any]]) -> Callable[[Any], Any]:
    answers = {
        sop_class: handler for service, handler in several for sop_class in service.sop_classes
    }

    def answer(event: Any) -> Any:
        _, handle, *arguments = answers[str(event.context.abstract_syntax)]
        return handle(event, *(arguments[0] if arguments else ()))

    return answer
