"""`python -m tests.fuzz --minutes 30`: every entrance in turn, with new inputs each time."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.fuzz.entrances import (
    Entrance,
    NoSuchEntranceError,
    Parser,
    Readers,
    Storage,
    Stow,
    Stream,
)
from tests.fuzz.hl7 import Hl7Messages
from tests.fuzz.session import fuzz
from tests.hostile.conftest import Target
from triage.logs import configure_logs
from triage.store.database import Database

_BATCH = {"data-set parser": 2000, "stored file": 400, "C-STORE": 400, "PDU stream": 100}
_BATCH_OF_OTHERS = 200


def main() -> int:
    """Run for as long as was asked; end with an error at the first broken promise."""
    arguments = _arguments()
    configure_logs(for_people=False, least=logging.CRITICAL)
    warnings.simplefilter("ignore")
    outcomes: dict[str, Counter[str]] = {}
    ended_by_errors: list[str] = []
    threading.excepthook = lambda error: ended_by_errors.append(error.exc_type.__name__)
    with _entrances() as entrances:
        until = time.monotonic() + arguments.minutes * 60
        seed = arguments.seed
        while time.monotonic() < until:
            for entrance in entrances:
                inputs = _BATCH.get(entrance.name, _BATCH_OF_OTHERS)
                found = fuzz(entrance, inputs=inputs, start=seed)
                outcomes.setdefault(entrance.name, Counter()).update(found)
            seed += 1
    figures = {
        f"{name}: {outcome}": count
        for name, counted in outcomes.items()
        for outcome, count in [("inputs", counted.total()), *counted.most_common()]
    }
    figures["threads that an error ended"] = len(ended_by_errors)
    for name, count in figures.items():
        print(f"{name:<44} {count}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1, help="of the first batch; they count up")
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    return parser.parse_args()


@contextmanager
def _entrances() -> Iterator[list[Entrance]]:
    """Give the entrances; what each holds at the end is looked at when the block is left."""
    with tempfile.TemporaryDirectory(prefix="triage-fuzz-") as folder, ExitStack() as stack:
        database = Database(f"sqlite:///{Path(folder) / 'triage.sqlite'}")
        stack.callback(database.close)
        database.migrate()
        target = Target(Path(folder), database)
        target.receiver.start()
        stack.callback(target.receiver.stop)
        entrances: list[Entrance] = [Parser(), Readers(), Storage(target), Stream(target)]
        entrances.append(Hl7Messages(database))
        try:
            entrances.append(Stow(target, database))
        except NoSuchEntranceError as error:
            print(f"STOW-RS is left out: {error}", file=sys.stderr)
        yield entrances
        for entrance in entrances:
            entrance.close()


if __name__ == "__main__":
    sys.exit(main())
