"""The commands of the tutorial are run, and say what it shows."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.tools import PROJECT
from triage.cli import main
from triage.models.registry import registered_package

_PAGE = PROJECT / "docs" / "tutorial-models.md"
_BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CHAPTERS = ["1. TorchScript", "2. ONNX", "3. Python"]


@dataclass(frozen=True)
class Typed:
    """A command as it is typed, and the lines that the page shows of its answer."""

    command: str
    answer: tuple[str, ...]

    @property
    def fails(self) -> bool:
        """Whether the page shows it failing."""
        return any(line.startswith(("wrong ", "triage: ")) for line in self.answer)


def chapters() -> dict[str, list[tuple[str, str]]]:
    """Return the blocks of code of each chapter, with their languages."""
    parts = re.split(r"^## (.*)$", _PAGE.read_text(), flags=re.MULTILINE)
    named = {"Before": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}
    return {name: _BLOCK.findall(text) for name, text in named.items()}


def typed_in(block: str) -> Iterator[Typed]:
    command: list[str] = []
    answer: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            if command:
                yield Typed("\n".join(command), tuple(answer))
            command, answer = [line[2:]], []
        elif line.startswith(">"):
            command.append(line[1:].removeprefix(" "))
        else:
            answer.append(line)
    yield Typed("\n".join(command), tuple(answer))


def run(typed: Typed, folder: Path) -> None:
    if not typed.command.startswith("triage "):
        subprocess.run(["bash", "-c", typed.command], cwd=folder, check=True)
        return
    ran = CliRunner().invoke(main, shlex.split(typed.command)[1:])
    assert (ran.exit_code != 0) is typed.fails, f"{typed.command}\n{ran.output}"
    for line in typed.answer:
        for part in filter(None, (part.strip() for part in line.split("…"))):
            assert part in ran.output, f"{typed.command}\n{ran.output}"


@pytest.mark.timeout(900)  # it starts a model's host four times
def test_every_command_of_the_tutorial_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIAGE_DATA_DIRECTORY", str(tmp_path / "var"))
    monkeypatch.setenv("TRIAGE_MODEL_REGISTRY", str(tmp_path / "model_registry"))
    monkeypatch.setenv("TRIAGE_WORKER__DEVICE", "cpu")
    registered_package.cache_clear()
    names: dict[str, Any] = {"__name__": "tutorial"}
    for name, blocks in chapters().items():
        for number, (language, block) in enumerate(blocks):
            if language == "python":
                source = tmp_path / f"{name[:1]}-{number}.py"  # TorchScript reads its source
                source.write_text(block)
                exec(compile(block, str(source), "exec"), names)
                continue
            for typed in typed_in(block):
                run(typed, tmp_path)


def test_page_has_all_its_chapters() -> None:
    assert [name.partition(",")[0] for name in chapters()] == ["Before", *_CHAPTERS]
