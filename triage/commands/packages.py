"""What a person means by a model and by a study on the command line."""

from __future__ import annotations

from triage.commands.store import opened_store
from triage.core.analysis import InputRefusedError
from triage.core.studies import Study
from triage.models.held import held_study
from triage.models.packages import ModelPackage, PackageError
from triage.models.registry import find_package, package_named
from triage.settings import Settings
from triage.store.database import DatabaseError
from triage.store.files import InstanceFiles


def package_meant(model: str, settings: Settings) -> ModelPackage:
    """Return the package in a folder, in the model registry, or among the registered ones.

    Raises:
        PackageError: there is none, or it is broken.
    """
    try:
        return package_named(model, settings.model_registry)
    except PackageError as error:
        if not _is_name(model):
            raise
        name, _, version = model.partition("/")
        try:
            with opened_store(settings) as store, store.reading() as session:
                return find_package(session, name, version or None)
        except (DatabaseError, PackageError):
            raise error from None


def _is_name(model: str) -> bool:
    return model.count("/") <= 1 and not model.startswith((".", "/"))


def held_by_triage(study_instance_uid: str, settings: Settings) -> Study:
    """Return a study that Triage holds.

    Raises:
        InputRefusedError: it is neither a folder nor such a study.
    """
    files = InstanceFiles(settings.data_directory)
    with opened_store(settings) as store, store.reading() as session:
        study = held_study(session, files, study_instance_uid)
    if study is None:
        raise InputRefusedError(
            f"{study_instance_uid} is neither a folder nor a study that Triage holds images of"
        )
    return study
