"""What an e-mail says: the first line is its subject, the rest its text."""

from __future__ import annotations

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from triage.core.notices import Notice
from triage.results.errors import DeliveryError
from triage.settings import EmailDestination

_LONGEST_SUBJECT = 150
_OURS = """\
{% set found = present|map(attribute="code.meaning")|join(", ") %}
{% set changed = change.before.label ~ " to " ~ change.after.label if change else "" %}
{% set how = "superseded" if withdrawal and withdrawal.is_superseded else "withdrawn" %}
{% if notice.kind == "withdrawal" %}AI result {{ how }}{% elif change %}Priority {{ changed }}
{%- elif found %}{{ study.priority.label }}: {{ found }}{% else %}Analysed, nothing found{% endif %}
 ({{ study.modalities|join(", ") or "study" }})
{% if withdrawal and withdrawal.is_superseded %}
The result of this analysis no longer holds: \
{{ withdrawal.reason or "the study has changed since" }}
{% elif withdrawal %}
{{ withdrawal.who or "A person" }} has withdrawn the result of this analysis: \
{{ withdrawal.reason }}
{% endif %}
{% if change %}
The priority was changed from {{ changed }}: {{ change.reason }}
{% endif %}
Study: {{ study.description or "without description" }}, from {{ study.calling_ae_title }}
Priority: {{ study.priority.label }} (the order says {{ study.order_priority.label }})
{% if study.patient.patient_id or study.patient.name %}
Patient: {{ study.patient.name }}, ID {{ study.patient.patient_id or "none" }}, \
born {{ study.patient.birth_date or "unknown" }}
{% endif %}
{% if study.accession_number %}
Accession number: {{ study.accession_number }}
{% endif %}
{% if run %}
Model: {{ run.identity }}{% if run.notice %} ({{ run.notice }}){% endif %}

{% for finding in run.findings %}
- {{ finding.in_words() }}
{% endfor %}
{% endif %}
{% if link %}

{{ link }}
{% endif %}

An AI result, not for primary diagnosis. Sent by Triage.
"""


def words_of(notice: Notice, destination: EmailDestination, link: str) -> tuple[str, str]:
    """Return subject and text of the message about `notice`.

    A template of the destination's own sees `notice`, its parts `study`, `run`, `change` and
    `withdrawal`, `present` (the findings that are there) and `link`.

    Raises:
        DeliveryError: the template cannot be read or asks for what is not there.
    """
    template = template_of(destination)
    findings = notice.run.findings if notice.run else ()
    try:
        text = template.render(
            notice=notice,
            study=notice.study,
            run=notice.run,
            change=notice.change,
            withdrawal=notice.withdrawal,
            present=[finding for finding in findings if finding.present],
            link=link,
        )
    except (TemplateError, TypeError, ValueError) as error:
        # The error's own words may repeat what was filled in.
        raise DeliveryError(
            f"{destination.name}: the template {destination.template} cannot be filled in: "
            f"{type(error).__name__}; compare it with docs/administrator.md",
            is_permanent=False,
        ) from error
    subject, _, body = text.strip().partition("\n")
    return " ".join(subject.split())[:_LONGEST_SUBJECT], body.strip() + "\n"


def template_of(destination: EmailDestination) -> Template:
    """Return the template of the destination, or ours.

    Raises:
        DeliveryError: it cannot be read.
    """
    environment = SandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    if destination.template is None:
        return environment.from_string(_OURS)
    try:
        return environment.from_string(destination.template.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, TemplateError) as error:
        raise DeliveryError(
            f"{destination.name}: the template {destination.template} cannot be read: {error}",
            is_permanent=False,
        ) from error
