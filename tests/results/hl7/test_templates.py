"""Templates of a site: what they may say, and what is said of those that cannot be filled in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.results.hl7.samples import PATIENT, PRIORITY, RESULT, STUDY, destination
from triage.results.hl7.messages import message_of
from triage.results.hl7.templates import TemplateError

GOOD = """\
{# The site wants one line of text. #}
{{ segments[0] }}
OBR|1||{{ filler_number }}|{{ order.procedure_code }}|||{{ notice.occurred_at }}
{% for finding in run.findings if finding.present %}
OBX|{{ loop.index }}|TX|AI||{{ finding.in_words() }} ({{ patient.name }})||||||F
{% endfor %}
ZAI|{{ study.priority|priority }}
"""


def test_a_template_replaces_the_segments_and_what_it_writes_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "oru.j2").write_text(GOOD)
    study = replace(STUDY, patient=replace(PATIENT, name="R&D|^Jane"))
    message = message_of(replace(RESULT, study=study), destination(templates=tmp_path))
    assert message.segments[0].startswith("MSH|")
    assert message.segments[1].startswith("PID|1||P1^^^HOSPITAL^PI||R\\T\\D\\F\\^Jane")
    assert message.segments[2].startswith("OBR|1||FI1|CTHEAD|||202603011")
    assert message.segments[3:] == (
        r"OBX|1|TX|AI||Hemorrhage, 12.3 mL, confidence 0.97 (R\T\D\F\\S\Jane)||||||F",
        "ZAI|S",
    )


def test_messages_without_a_template_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "oru.j2").write_text(GOOD)
    with_templates = message_of(PRIORITY, destination(templates=tmp_path))
    assert with_templates == message_of(PRIORITY, destination())


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (
            "PID|1\nOBR|1|{{ order.placer_number }}|{{ study.accession }}\n",
            r"oru.j2, line 2 \(OBR-3\): .*no attribute 'accession'",
        ),
        ("PID|{{ patent }}\n", r"oru.j2, line 1 \(PID-1\): 'patent' is undefined"),
        ("PID|{{ patient.name\n", r"oru.j2, line 1: "),
        ("PID|{{ 1 / 0 }}\n", r"oru.j2, line 1 \(PID\): ZeroDivisionError"),
        ("PID|1\nsomething else\n", "oru.j2: 'something el' is no segment"),
        ("MSH|1\n", "is no segment after MSH"),
        ("{# nothing #}", "oru.j2 makes no segment"),
        ("PID|{{ ''.__class__.__mro__ }}\n", "oru.j2, line 1"),
        ("PID|{{ study.__init__.__globals__ }}\n", "oru.j2, line 1"),
    ],
)
def test_a_template_that_fails_says_file_line_and_field(
    tmp_path: Path, template: str, said: str
) -> None:
    (tmp_path / "oru.j2").write_text(template)
    with pytest.raises(TemplateError, match=said):
        message_of(RESULT, destination(templates=tmp_path))


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match="is no folder"):
        message_of(RESULT, destination(templates=tmp_path / "missing"))
