"""C-FIND, C-GET and C-MOVE as a user (DICOM PS3.4 annex C, Study Root)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)
from pynetdicom import StoragePresentationContexts, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import PresentationContext, build_context, build_role

from triage.associations import AssociationError, associate
from triage.core.priors import Comparable
from triage.receiver.encoded import EncodedInstance
from triage.receiver.headers import parse_header
from triage.receiver.refusals import RefusedInstanceError
from triage.receiver.retrieve.archive import (
    INSTANCE_KEYWORDS,
    SERIES_KEYWORDS,
    STUDY_KEYWORDS,
    FoundInstance,
    FoundSeries,
    NotOfferedError,
    Progress,
    RetrieveError,
    StudyQuery,
    Take,
    instance_in,
    series_in,
    study_in,
)
from triage.settings import RemoteSettings

# Private storage SOP classes are taken in a C-GET too; pynetdicom has one switch for the process.
_config.UNRESTRICTED_STORAGE_SERVICE = True
_config.LOG_HANDLER_LEVEL = "none"

FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
MOVE = UID("1.2.840.10008.5.1.4.1.2.2.2")
GET = UID("1.2.840.10008.5.1.4.1.2.2.3")
_MOST_CONTEXTS = 128  # PS3.8 9.3.2.2: odd numbers up to 255
# An archive may say nothing while it fetches from a slow store, and its sub-operations take long.
_LONGEST_SILENCE_S = 300.0
_UNCOMPRESSED = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
# The commonest first: with many SOP classes there is no room for all of them.
_COMPRESSED = tuple(
    dict.fromkeys(
        [
            UID("1.2.840.10008.1.2.4.70"),
            *JPEG2000TransferSyntaxes,
            *JPEGLSTransferSyntaxes,
            RLELossless,
            *JPEGTransferSyntaxes,
            UID("1.2.840.10008.1.2.4.201"),
            UID("1.2.840.10008.1.2.4.202"),
            UID("1.2.840.10008.1.2.4.203"),
            UID("1.2.840.10008.1.2.4.102"),
            UID("1.2.840.10008.1.2.4.103"),
            UID("1.2.840.10008.1.2.4.100"),
        ]
    )
)
_NOT_OFFERED = {0x0122, 0x0211}  # SOP class not supported, unrecognised operation


class DimseFinder:
    """Asks an archive what it holds, by C-FIND."""

    def __init__(self, remote: RemoteSettings, *, calling_ae_title: str) -> None:
        self._remote = remote
        self._calling = calling_ae_title

    def find_studies(self, query: StudyQuery) -> list[Comparable]:
        """Return the studies that match.

        Raises:
            RetrieveError: the archive cannot be asked, or answers with a failure.
        """
        wanted = {
            "StudyInstanceUID": query.study_instance_uid,
            "AccessionNumber": query.accession_number,
            "PatientID": query.patient_id,
        }
        with self._asking() as association:
            found = [
                study_in(answer)
                for answer in self._find(association, "STUDY", STUDY_KEYWORDS, wanted)
            ]
        return [study for study in found if study.study_instance_uid and query.matches(study)]

    def find_series(self, study_instance_uid: str) -> list[FoundSeries]:
        """Return the series of a study.

        Raises:
            RetrieveError: the archive cannot be asked, or answers with a failure.
        """
        with self._asking() as association:
            return self._series_of(association, study_instance_uid)

    def find_instances(self, study_instance_uid: str) -> list[FoundInstance]:
        """Return the instances of a study.

        Raises:
            RetrieveError: the archive cannot be asked, or answers with a failure.
        """
        found: dict[str, FoundInstance] = {}
        with self._asking() as association:
            for series in self._series_of(association, study_instance_uid):
                keys = {
                    "StudyInstanceUID": study_instance_uid,
                    "SeriesInstanceUID": series.series_instance_uid,
                }
                for answer in self._find(association, "IMAGE", INSTANCE_KEYWORDS, keys):
                    one = instance_in(answer, series.series_instance_uid)
                    found.setdefault(one.sop_instance_uid, one)
        found.pop("", None)
        return list(found.values())

    def _series_of(self, association: Association, study_instance_uid: str) -> list[FoundSeries]:
        keys = {"StudyInstanceUID": study_instance_uid}
        answers = self._find(association, "SERIES", SERIES_KEYWORDS, keys)
        return [one for one in map(series_in, answers) if one.series_instance_uid]

    @contextmanager
    def _asking(self) -> Iterator[Association]:
        contexts = [build_context(FIND, list(_UNCOMPRESSED[:2]))]
        with _associated(self._remote, contexts, self._calling, "C-FIND") as association:
            yield association

    def _find(
        self,
        association: Association,
        level: str,
        keywords: Iterable[str],
        wanted: dict[str, str],
    ) -> list[Dataset]:
        query = Dataset()
        query.QueryRetrieveLevel = level
        for keyword in keywords:
            setattr(query, keyword, None)
        for keyword, value in wanted.items():
            setattr(query, keyword, value or None)
        found = []
        for status, identifier in association.send_c_find(query, FIND):
            if "Status" not in status:
                raise RetrieveError(f"{self._remote.name} did not answer C-FIND, or broke off")
            if status.Status in (0xFF00, 0xFF01) and identifier is not None:
                found.append(identifier)
            elif status.Status != 0x0000:
                raise _failure(self._remote, "C-FIND", status)
        return found


class GetWay:
    """C-GET: the archive gives the instances over the association that asks for them."""

    name = "c-get"

    def __init__(self, remote: RemoteSettings, *, calling_ae_title: str) -> None:
        self._remote = remote
        self._calling = calling_ae_title

    def retrieve(
        self,
        study_instance_uid: str,
        instances: Sequence[FoundInstance],
        *,
        is_whole_study: bool,
        take: Take,
        progress: Progress,
    ) -> None:
        """Let the instances be given to `take`.

        Raises:
            NotOfferedError: the archive offers no C-GET, or would send none of the SOP classes.
            RetrieveError: it broke off, or refused.
        """
        contexts = storage_contexts({one.sop_class_uid for one in instances})
        abstract = dict.fromkeys(str(c.abstract_syntax) for c in contexts)
        come: list[str] = []

        def on_store(event: evt.Event) -> int:
            status = _take(event, take)
            come.append("")
            progress(len(come))
            return status

        with _associated(
            self._remote,
            [build_context(GET, list(_UNCOMPRESSED[:2])), *contexts],
            self._calling,
            "C-GET",
            roles=[build_role(uid, scp_role=True) for uid in abstract],
            handlers=[(evt.EVT_C_STORE, on_store)],
        ) as association:
            _require_context(association, self._remote)
            for identifier in _identifiers(study_instance_uid, instances, is_whole_study):
                _carry_out(association.send_c_get(identifier, GET), self._remote, "C-GET")


class MoveWay:
    """C-MOVE: the archive sends the instances to our receiver, over an association of its own."""

    name = "c-move"

    def __init__(
        self, remote: RemoteSettings, *, calling_ae_title: str, message_id: int = 1
    ) -> None:
        """Prepare; `message_id` comes back with each instance as Move Originator Message ID."""
        self._remote = remote
        self._calling = calling_ae_title
        self._message_id = message_id

    def retrieve(
        self,
        study_instance_uid: str,
        instances: Sequence[FoundInstance],
        *,
        is_whole_study: bool,
        take: Take,
        progress: Progress,
    ) -> None:
        """Let the instances be sent to the receiver of our AE title; `take` is not used.

        Raises:
            NotOfferedError: the archive offers no C-MOVE.
            RetrieveError: it broke off, or refused, as where it does not know our AE title.
        """
        del take
        contexts = [build_context(MOVE, list(_UNCOMPRESSED[:2]))]
        come = 0
        with _associated(self._remote, contexts, self._calling, "C-MOVE") as association:
            for identifier in _identifiers(study_instance_uid, instances, is_whole_study):
                answers = association.send_c_move(
                    identifier, self._calling, MOVE, msg_id=self._message_id
                )
                come += _carry_out(answers, self._remote, "C-MOVE", progress, come)


def storage_contexts(sop_class_uids: set[str]) -> list[PresentationContext]:
    """Return presentation contexts for a C-GET in which instances can come as they are stored.

    Of the transfer syntaxes of one context the archive would choose one for all instances. So each
    compressed one has a context of its own, as many as there is room for (128 less the C-GET's).
    Where the archive has not said which SOP classes there are, the commonest are proposed.
    """
    classes = sorted(filter(None, sop_class_uids))
    if "" in sop_class_uids or not classes:
        common = [str(c.abstract_syntax) for c in StoragePresentationContexts]
        classes = list(dict.fromkeys([*classes, *common]))
    room = _MOST_CONTEXTS - 1
    classes = classes[:room]
    contexts = [build_context(uid, list(_UNCOMPRESSED)) for uid in classes]
    for transfer_syntax in _COMPRESSED:
        if len(contexts) + len(classes) > room:
            break
        contexts += [build_context(uid, transfer_syntax) for uid in classes]
    if len(contexts) + len(classes) <= room:
        contexts += [build_context(uid, ExplicitVRLittleEndian) for uid in classes]
    if len(contexts) + len(classes) <= room:
        contexts += [build_context(uid, ImplicitVRLittleEndian) for uid in classes]
    return contexts


def _take(event: evt.Event, take: Take) -> int:
    request = cast(C_STORE, event.request)
    dataset = request.DataSet.getvalue() if request.DataSet is not None else b""
    transfer_syntax_uid = str(event.context.transfer_syntax)
    try:
        header = parse_header(dataset, transfer_syntax_uid)
    except RefusedInstanceError as refusal:
        return int(refusal.status)
    return take(EncodedInstance(dataset, transfer_syntax_uid, header))


@contextmanager
def _associated(
    remote: RemoteSettings,
    contexts: list[PresentationContext],
    calling_ae_title: str,
    service: str,
    *,
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Iterator[Association]:
    """Give an association on which `service`, the first of `contexts`, is accepted."""
    try:
        with associate(
            remote, contexts, calling_ae_title=calling_ae_title, roles=roles, handlers=handlers
        ) as association:
            wanted = contexts[0].abstract_syntax
            if not any(c.abstract_syntax == wanted for c in association.accepted_contexts):
                raise NotOfferedError(f"{remote.name} offers no {service}")
            if service != "C-FIND":
                association.dimse_timeout = max(remote.timeout_s, _LONGEST_SILENCE_S)
                association.network_timeout = max(remote.timeout_s, _LONGEST_SILENCE_S)
            yield association
    except AssociationError as error:
        if error.no_context:
            raise NotOfferedError(f"{remote.name} offers no {service}") from error
        raise RetrieveError(str(error)) from error
    except (RuntimeError, ValueError) as error:
        # Pynetdicom's words for an association that ended meanwhile.
        raise RetrieveError(f"{remote.name} broke off during {service}") from error


def _require_context(association: Association, remote: RemoteSettings) -> None:
    if not any(context.as_scp for context in association.accepted_contexts):
        raise NotOfferedError(f"{remote.name} would send none of the SOP classes over a C-GET")


def _identifiers(
    study_instance_uid: str, instances: Sequence[FoundInstance], is_whole_study: bool
) -> Iterator[Dataset]:
    """Yield what to ask for: the study, or each instance (PS3.4 C.4.2.1.4)."""
    if is_whole_study:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "STUDY"
        identifier.StudyInstanceUID = study_instance_uid
        yield identifier
        return
    for one in instances:
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "IMAGE"
        identifier.StudyInstanceUID = study_instance_uid
        identifier.SeriesInstanceUID = one.series_instance_uid
        identifier.SOPInstanceUID = one.sop_instance_uid
        yield identifier


def _carry_out(
    answers: Iterator[tuple[Dataset, Dataset | None]],
    remote: RemoteSettings,
    service: str,
    progress: Progress | None = None,
    before: int = 0,
) -> int:
    """Follow the answers to their end and return how many sub-operations were completed.

    A warning (0xB000) means that some failed: which of them, the store knows better.
    """
    completed = 0
    for status, _ in answers:
        if "Status" not in status:
            raise RetrieveError(f"{remote.name} did not answer {service}, or broke off")
        completed = int(status.get("NumberOfCompletedSuboperations") or completed)
        if progress is not None:
            progress(before + completed)
        if status.Status in (0x0000, 0xB000) or status.Status & 0xFF00 == 0xFF00:
            continue
        raise _failure(remote, service, status)
    return completed


def _failure(remote: RemoteSettings, service: str, status: Dataset) -> RetrieveError:
    code = int(status.Status)
    words = {0xA801: "it does not know our AE title as a destination; add it to the archive"}
    comment = str(status.get("ErrorComment") or "").strip()
    said = words.get(code) or (f"it says {comment!r}" if comment else "it gives no reason")
    text = f"{remote.name} answers {service} with 0x{code:04X}: {said}"
    return NotOfferedError(text) if code in _NOT_OFFERED else RetrieveError(text)
