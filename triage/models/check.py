"""`triage models check`: whether a package is whole, and does here what it should do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from triage.core.analysis import Analysis, AnalysisFailedError, InputRefusedError
from triage.core.findings import Finding
from triage.models.code import code_in
from triage.models.host import ModelHosts
from triage.models.package_samples import EXPECTED, FOLDER, Sample, SampleError, samples_of
from triage.models.packages import MANIFEST_NAME, ModelPackage, PackageError, load_package
from triage.models.placeholders import PLACEHOLDER, unfilled
from triage.models.try_model import analyse_study, read_study
from triage.settings import SandboxMode, WorkerSettings

CARD = "MODEL_CARD.md"
_SHORT_CARD = 200


class Verdict(StrEnum):
    """How a check came out: LOOK is for a person to judge and no fault."""

    OK = "ok"
    LOOK = "look"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, how it is, and what to do about it."""

    name: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class PackageReport:
    """All checks of a package, and what it said about its samples."""

    checks: tuple[Check, ...]
    said: dict[str, tuple[Finding, ...]]

    @property
    def is_ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.verdict is not Verdict.WRONG for check in self.checks)


def check_package(
    folder: Path,
    worker: WorkerSettings | None = None,
    sandbox: SandboxMode = "prefer",
    *,
    may_run: Callable[[ModelPackage], bool] = lambda _: True,
) -> PackageReport:
    """Check the package in `folder`: what it says of itself, its files, and a run on its samples.

    The model runs in a host of its own, as in a worker. Nothing is registered. A package with code
    runs only where `may_run` says so.
    """
    try:
        package = load_package(folder)
    except PackageError as error:
        lines = tuple(
            Check("model.yaml", Verdict.WRONG, line.removeprefix(f"{folder.absolute()}/"))
            for line in str(error).splitlines()
        )
        return PackageReport((*lines, *_check_card(folder)), {})
    checks = [
        Check("model.yaml", Verdict.OK, f"{package.manifest.identity}, {package.manifest.title}"),
        *_check_weights(package),
        *_check_filled(package),
        *_check_card(folder),
    ]
    code = [*_check_code(package)]
    checks += code
    said: dict[str, tuple[Finding, ...]] = {}
    try:
        samples = samples_of(folder)
    except SampleError as error:
        checks.append(Check(FOLDER, Verdict.WRONG, str(error)))
        return PackageReport(tuple(checks), said)
    if not samples:
        checks.append(
            Check(FOLDER, Verdict.LOOK, f"there is none; put a small study into {FOLDER}/")
        )
        return PackageReport(tuple(checks), said)
    if code and not may_run(package):
        checks.append(Check(FOLDER, Verdict.LOOK, "not run: nobody has approved the code above"))
        return PackageReport(tuple(checks), said)
    hosts = ModelHosts(worker or WorkerSettings(), sandbox=sandbox)
    checks += asyncio.run(_run_samples(package, samples, hosts, said))
    return PackageReport(tuple(checks), said)


def _check_weights(package: ModelPackage) -> Iterator[Check]:
    runner = package.manifest.runner
    if runner.weights:  # load_package has compared the digest
        text = f"{runner.weights} has the digest that {MANIFEST_NAME} states"
        yield Check("weights", Verdict.OK, text)


def _check_filled(package: ModelPackage) -> Iterator[Check]:
    keys = list(unfilled(package.manifest.model_dump(mode="json")))
    for key in keys:
        text = f"{key}: only you can say this; replace {PLACEHOLDER!r}"
        yield Check("to be said", Verdict.WRONG, text)


def _check_code(package: ModelPackage) -> Iterator[Check]:
    for found in code_in(package):
        text = f"{found.in_words()}; an administrator has to approve it before it is run"
        yield Check("code", Verdict.LOOK, text)


def _check_card(folder: Path) -> Iterator[Check]:
    try:
        card = (folder / CARD).read_text(encoding="utf-8")
    except OSError:
        yield Check("card", Verdict.WRONG, f"there is no {CARD}; say what the model is for")
        return
    if PLACEHOLDER in card:
        left = sum(PLACEHOLDER in line for line in card.splitlines())
        yield Check("card", Verdict.WRONG, f"{CARD}: {left} lines still say {PLACEHOLDER!r}")
    elif len(card) < _SHORT_CARD:
        yield Check(
            "card", Verdict.LOOK, f"{CARD} is short: for whom is it, and where does it fail?"
        )
    else:
        yield Check("card", Verdict.OK, CARD)


async def _run_samples(
    package: ModelPackage,
    samples: list[Sample],
    hosts: ModelHosts,
    said: dict[str, tuple[Finding, ...]],
) -> list[Check]:
    checks: list[Check] = []
    try:
        for sample in samples:
            started = time.perf_counter()
            name = f"{FOLDER}/{sample.name}"
            try:
                study = await asyncio.to_thread(read_study, sample.path)
                analysis = await analyse_study(hosts, package, study)
            except (InputRefusedError, AnalysisFailedError) as error:
                checks.append(Check(name, Verdict.WRONG, str(error)))
                continue
            said[sample.name] = analysis.findings
            seconds = time.perf_counter() - started
            checks.append(_judge(name, sample, analysis, seconds))
        checks += _memory(hosts)
    finally:
        await asyncio.to_thread(hosts.close)
    return checks


def _judge(name: str, sample: Sample, analysis: Analysis, seconds: float) -> Check:
    words = "; ".join(finding.in_words() for finding in analysis.findings)
    took = f"{seconds:.1f} s, of which inference {analysis.timings_s.get('infer', 0):.2f} s"
    if not sample.findings:
        hint = f"{EXPECTED} expects nothing of it; --record writes what it says now"
        return Check(name, Verdict.LOOK, f"{words} ({took}); {hint}")
    wrong = sample.contradictions(analysis.findings)
    if wrong:
        return Check(name, Verdict.WRONG, f"{'; '.join(wrong)}; mend the model or {EXPECTED}")
    return Check(name, Verdict.OK, f"{words} ({took})")


def _memory(hosts: ModelHosts) -> Iterator[Check]:
    for pid in hosts.process_ids().values():
        peak = _peak_mb(pid)
        if peak is not None:
            yield Check("memory", Verdict.OK, f"the host took {peak:.0f} MB at most")


def _peak_mb(pid: int) -> float | None:
    """Return the peak of a process's memory in MB (VmHWM, proc(5)), None where it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(words[1]) / 1024 for words in lines), None)
