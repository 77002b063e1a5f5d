"""Every operation of the JSON API as a method.

To add one: declare it in the module of its area with its signature, and run `make client` for its
models. A test names what is missing.
"""

from __future__ import annotations

from triage.client.model_versions import ModelOperations
from triage.client.people import PeopleOperations
from triage.client.rules import RuleOperations
from triage.client.running import RunningOperations
from triage.client.studies import StudyOperations
from triage.client.worklist import WorklistOperations


class TriageClient(
    WorklistOperations,
    StudyOperations,
    RunningOperations,
    ModelOperations,
    RuleOperations,
    PeopleOperations,
):
    """The JSON API of a Triage server; `Connection` says how it is reached.

    `who` names the person for whom a program acts; where Triage knows who asks, that counts.
    """
