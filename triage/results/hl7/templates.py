"""Templates of a site, which replace our segments after MSH: one file for each kind of message.

They are Jinja2 in its sandbox. Whatever an expression gives is escaped, so that a name with an
ampersand breaks no field; `segments` are ours, ready to be taken over. A template may read what a
notice says, and nothing else of this machine.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.exceptions import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from triage.core.errors import TriageError
from triage.core.notices import Notice
from triage.hl7.building import Raw
from triage.hl7.characters import escape
from triage.hl7.message import moment_in_digits
from triage.results.hl7.segments import filler_number, priority_code

_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}(\|.*)?", re.DOTALL)
_UNDEFINED = re.compile(r"'([A-Za-z_][A-Za-z0-9_]*)'(?: is undefined)?$")
_LONGEST = 1 << 20
NAMES = ("oru", "omi", "orm")
"""The messages that may have a template."""


class TemplateError(TriageError):
    """A template cannot be filled in; the message names the file, the line and the field."""


def replaced_by_template(
    folder: Path, name: str, notice: Notice, segments: Sequence[str]
) -> list[str]:
    """Return the segments that the template NAME.j2 of `folder` makes, or ours if there is none.

    Raises:
        TemplateError: it cannot be read or filled in, or makes no segments.
    """
    file = f"{name}.j2"
    if file not in check_templates(folder):
        return list(segments)
    template = _environment(folder).get_template(file)
    try:
        made = template.render(_context(notice, segments))
    except Exception as error:  # noqa: BLE001 - an expression may raise whatever Python has
        raise TemplateError(_in_words(folder / file, error)) from None
    return _checked(file, made)


def check_templates(folder: Path) -> list[str]:
    """Return the names of the templates in a folder, all of which can be read.

    Raises:
        TemplateError: one cannot, or the folder is none.
    """
    if not folder.is_dir():
        raise TemplateError(f"templates: {folder} is no folder; create it, or remove the key")
    environment = _environment(folder)
    found = [file for file in (f"{name}.j2" for name in NAMES) if (folder / file).exists()]
    for file in found:
        try:
            environment.get_template(file)
        except TemplateSyntaxError as error:
            raise TemplateError(f"{file}, line {error.lineno}: {error.message}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f"{file} cannot be read: {error}") from None
    return found


def _environment(folder: Path) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters["priority"] = lambda value: priority_code(value)[0]
    environment.filters["moment"] = moment_in_digits
    environment.globals.clear()
    return environment


def _finalized(value: Any) -> Any:
    if isinstance(value, Raw) or value is None:
        return value or ""
    if isinstance(value, datetime):
        return moment_in_digits(value)
    if isinstance(value, StrictUndefined):
        return value  # it raises when it is written, and says which
    return escape(str(value))


def _context(notice: Notice, segments: Sequence[str]) -> dict[str, Any]:
    return {
        "notice": notice,
        "study": notice.study,
        "patient": notice.study.patient,
        "order": notice.study.order,
        "run": notice.run,
        "change": notice.change,
        "withdrawal": notice.withdrawal,
        "filler_number": filler_number(notice.study),
        "segments": [Raw(one) for one in segments],
    }


def _in_words(file: Path, error: Exception) -> str:
    """Return what is wrong, with the line of the template and the field that stands there."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    message = str(error) if isinstance(error, JinjaError) else f"{type(error).__name__}: {error}"
    if not frames or frames[-1].lineno is None:
        return f"{file.name}: {message}"
    number = frames[-1].lineno
    line = file.read_text(encoding="utf-8").splitlines()[number - 1]
    return f"{file.name}, line {number}{_field_of(line, message)}: {message}"


def _field_of(line: str, message: str) -> str:
    """Return the field of a template's line that a message speaks of, such as " (OBR-18)"."""
    segment = line[:3]
    if not _SEGMENT.fullmatch(line.strip()):
        return ""
    named = _UNDEFINED.search(message)
    before = line.split(named[1], maxsplit=1)[0] if named and named[1] in line else ""
    # Bars within {{ … }} are Jinja's filters.
    bars = re.sub(r"\{\{.*?(\}\}|$)", "", before).count("|")
    return f" ({segment}-{bars})" if bars else f" ({segment})"


def _checked(file: str, made: str) -> list[str]:
    if len(made) > _LONGEST:
        raise TemplateError(f"{file}: what it makes is longer than {_LONGEST} characters")
    lines = [line.strip("\r ") for line in re.split(r"[\r\n]+", made)]
    segments = [line for line in lines if line]
    for line in segments:
        if not _SEGMENT.fullmatch(line) or line.startswith("MSH"):
            raise TemplateError(
                f"{file}: {line[:12]!r} is no segment after MSH; a line begins with the segment's "
                "name and a bar, such as PID|"
            )
    if not segments:
        raise TemplateError(f"{file} makes no segment")
    return segments
