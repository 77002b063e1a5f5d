"""Who says what a document says: the model's device, or a person (DICOM PS3.16 TID 1002)."""

from __future__ import annotations

from highdicom.sr import (
    DeviceObserverIdentifyingAttributes,
    ObserverContext,
    PersonObserverIdentifyingAttributes,
)
from pydicom.sr.codedict import codes

from triage.results.context import MANUFACTURER, ResultContext

_PERSON_NAME = 64  # characters of a component group of the VR PN, DICOM PS3.5 6.2
_NOT_IN_A_NAME = str.maketrans(dict.fromkeys("\\^=", " "))


def device_observer(context: ResultContext) -> ObserverContext:
    """Return the model as the observing device (TID 1004)."""
    return observing_device(context.device_uid, context.manifest.identity, context.manifest.name)


def observing_device(uid: str, identity: str, model: str) -> ObserverContext:
    """Return the device `uid`, which is the version `identity` of `model`, as the observer."""
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=uid, name=identity, manufacturer_name=MANUFACTURER, model_name=model
        ),
    )


def observing_person(who: str) -> ObserverContext:
    """Return a person, as free text names them, as the observer (TID 1003)."""
    name = " ".join(who.translate(_NOT_IN_A_NAME).split())[:_PERSON_NAME].strip() or "unnamed"
    return ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=PersonObserverIdentifyingAttributes(name=f"{name}^"),
    )
