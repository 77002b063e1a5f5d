"""Figures for monitoring, in the text formats of OpenMetrics and Prometheus; no patient data.

Nothing here names a study or a patient: labels are AE titles, destinations, models and states.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from triage.core.permissions import Permission
from triage.core.runs import DeliveryState
from triage.web.access import may
from triage.web.context import Context
from triage.web.surroundings import surroundings
from triage.worklist.operations import Operations, operations
from triage.worklist.operations_board import Board, QueueView, board

router = APIRouter(include_in_schema=False, dependencies=[Depends(may(Permission.SEE_OPERATIONS))])


@router.get("/metrics")
def metrics(request: Request, context: Context) -> Response:
    """Give the state of the whole as figures."""
    now = context.now()
    around = surroundings(context)
    with context.database.reading() as session:
        state = operations(session, now, context.disk(), context.settings.destinations)
        machinery = board(session, now, around)
    registry = CollectorRegistry()
    registry.register(_Figures(_families(state, machinery, now.timestamp())))
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(registry), media_type=content_type)


class _Figures(Collector):
    """Figures of one moment."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        """Return the figures."""
        return self._families


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"triage_{name}", text, labels=labels)


def _families(state: Operations, board: Board, now: float) -> Iterator[Metric]:
    yield InfoMetricFamily("triage", "The version of Triage.", {"version": board.version})
    yield from _work(state, board, now)
    yield from _senders(board, now)
    yield from _workers(board, now)
    yield from _deliveries(state)
    free = _gauge("disk_free_bytes", "Free on the disk of the images.")
    free.add_metric((), state.disk.free_bytes if state.disk else 0)
    yield free
    days = _gauge("disk_days_left", "Days until no image is taken, if nothing is deleted.")
    if board.disk.days_left is not None:
        days.add_metric((), board.disk.days_left)
    yield days
    prefect = _gauge("prefect_up", "1 where Prefect's API answers.")
    prefect.add_metric((), int(board.prefect_is_reached))
    yield prefect
    quarantine = _gauge("quarantined_objects", "Objects of remote models in quarantine.")
    quarantine.add_metric((), len(board.quarantine))
    yield quarantine
    parked = _gauge("model_parked", "1 for each model that is parked after failures.", "model")
    for one in state.parked:
        parked.add_metric((one.model,), 1)
    yield parked


def _work(state: Operations, board: Board, now: float) -> Iterator[Metric]:
    runs = _gauge("runs", "Analysis runs by state.", "state")
    for name, count in state.runs.items():
        runs.add_metric((name,), count)
    yield runs
    length = _gauge("queue_length", "How much waits.", "queue")
    age = _gauge("queue_oldest_seconds", "How long the oldest has waited.", "queue")
    for queue in board.queues:
        length.add_metric((_name(queue),), queue.length)
        if queue.oldest_at is not None:
            age.add_metric((_name(queue),), max(0.0, now - queue.oldest_at.timestamp()))
    yield length
    yield age


def _name(queue: QueueView) -> str:
    return queue.name.replace(" ", "_")


def _senders(board: Board, now: float) -> Iterator[Metric]:
    labels = ("calling_ae_title", "way")
    families = {
        "today": _gauge("sender_instances_today", "Instances since midnight.", *labels),
        "refused": _gauge("sender_refused_today", "Instances not taken since midnight.", *labels),
        "silent": _gauge(
            "sender_silent", "1 where it is silent at hours at which it sends.", *labels
        ),
        "age": _gauge("sender_last_instance_seconds", "Since it last sent.", *labels),
    }
    seen: dict[tuple[str, str], list[float]] = {}
    for one in board.intake.senders:
        age = max(0.0, now - one.last_at.timestamp())
        figures = [one.today, one.refused, int(bool(one.silence)), age]
        known = seen.setdefault((one.calling_ae_title, one.way.value), figures)
        if known is not figures:  # one AE title at several addresses
            known[:] = [
                known[0] + figures[0],
                known[1] + figures[1],
                *map(min, known[2:], figures[2:]),
            ]
    for sender, figures in seen.items():
        for family, value in zip(families.values(), figures, strict=True):
            family.add_metric(sender, value)
    yield from families.values()
    refused = _gauge("refused_associations_day", "Rejected associations in a day.", "reason")
    totals: dict[str, int] = {}
    for caller in board.intake.refused:
        totals[caller.reason] = totals.get(caller.reason, 0) + caller.times
    for reason, times in totals.items():
        refused.add_metric((reason,), times)
    yield refused


def _workers(board: Board, now: float) -> Iterator[Metric]:
    up = _gauge("worker_up", "1 where the worker is alive.", "worker")
    beat = _gauge("worker_heartbeat_seconds", "Since its last sign of life.", "worker")
    used = _gauge("device_memory_used_bytes", "Memory in use.", "worker", "device")
    total = _gauge("device_memory_total_bytes", "Memory.", "worker", "device")
    busy = _gauge(
        "device_busy_ratio", "Share of the time in which it computes.", "worker", "device"
    )
    for worker in board.workers:
        up.add_metric((worker.name,), int(worker.is_alive))
        beat.add_metric((worker.name,), max(0.0, now - worker.alive_at.timestamp()))
        for device in worker.devices if worker.is_alive else ():
            for family, value in (
                (used, device.memory_used_bytes),
                (total, device.memory_total_bytes),
                (busy, device.busy),
            ):
                if value is not None:
                    family.add_metric((worker.name, device.name), value)
    yield from (up, beat, used, total, busy)


def _deliveries(state: Operations) -> Iterator[Metric]:
    family = _gauge("deliveries", "Deliveries by destination and state.", "destination", "state")
    paused = _gauge("destination_paused", "1 where a person paused it.", "destination")
    for one in state.destinations:
        for name, count in (
            (DeliveryState.WAITING, one.waiting + one.sending),
            (DeliveryState.DEAD, one.dead),
            (DeliveryState.DELIVERED, one.delivered),
        ):
            family.add_metric((one.name, name.value), count)
        paused.add_metric((one.name,), int(one.pause is not None))
    yield family
    yield paused
