"""What in a package is code, and would run when the model does."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from triage.models.exported_code import code_in_program
from triage.models.packages import MANIFEST_NAME, ModelPackage, package_files

_CONFIGS = frozenset({".json", ".yaml", ".yml"})
_PYTHON = frozenset({".py", ".pyc", ".pyd", ".so", ".pth"})
_PROGRAM = ".pt2"
_NOT_RUN = "recipe"
"""The folder of the code that trained the model: Triage never runs it."""

_REFERENCE = re.compile(r"\$?@[\w#:]+")
_CLASS = re.compile(r"^class (\w+)|^((?:\w+ = )+)\w+$", re.MULTILINE)
_MONAI_PARTS = ("transforms", "networks", "inferers")
"""The parts of MONAI whose classes compute and do nothing else."""

_ABOUT_FILES = re.compile(r"(Load|Save)Image(d|D|Dict)?|WriteFileMapping(d|D|Dict)?")
_BY_NAME = re.compile(r"_\w+|(?:Rand)?(?:TorchVision|TorchIO|CuCIM)\w*|(?:Trt|TRT)\w+")
"""Classes that call whatever they are told by name, or load compiled programs; and private ones."""

_LEFT_OUT = re.compile(r"(pre|post)processing#transforms#\d+")
"""Where steps that load and save files are left out before the bundle is run."""

_DOTTED = re.compile(rf"monai\.(?:{'|'.join(_MONAI_PARTS)})(?:\.[a-z]\w*)*\.([A-Z]\w*)")
_LAYER = re.compile(r"torch\.nn\.(?:modules\.[a-z]+\.)?[A-Z]\w*")
"""No deeper: what a module of torch has imported can be named as its attribute."""

_LONGEST_SHOWN = 120


@dataclass(frozen=True, slots=True)
class CodeFound:
    """A piece of code in a package: the file, the place in it, and its text."""

    file: str
    place: str
    text: str

    def in_words(self) -> str:
        """Return it as one line."""
        where = f"{self.file}, {self.place}" if self.place else self.file
        shown = self.text if len(self.text) <= _LONGEST_SHOWN else f"{self.text[:_LONGEST_SHOWN]}…"
        return f"{where}: {shown}"


def code_in(package: ModelPackage) -> tuple[CodeFound, ...]:
    """Return the code of `package` that would run in its host.

    That are Python files outside of `recipe/`, and in the configuration of a bundle: `$`
    expressions other than plain references, and a `_target_` that is no class of torch.nn or of
    MONAI's transforms, networks and inferers. Weights are data, because state dicts are read with
    `weights_only`, and so are ONNX, TorchScript, and exported programs of plain operators.
    """
    kind: str = package.manifest.runner.kind
    exported = Path(package.manifest.runner.weights) if kind == "torch-export" else None
    found: list[CodeFound] = []
    if kind == "python":
        found.append(
            CodeFound(MANIFEST_NAME, "runner.kind", "python: a class of the package's own")
        )
    for path in package_files(package.path):
        name = path.as_posix()
        if path.suffix in _PYTHON and path.parts[0] != _NOT_RUN:
            found.append(CodeFound(name, "", "a file of Python code"))
        elif path.suffix == _PROGRAM or path == exported:
            found += [CodeFound(name, *where) for where in code_in_program(package.path / path)]
        elif path.suffix in _CONFIGS and path.parts[0] == "configs":
            found += _in_config(name, package.path / path)
    return tuple(found)


def _in_config(name: str, path: Path) -> Iterable[CodeFound]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        # What cannot be read here might be read otherwise where it is run.
        yield CodeFound(name, "", f"cannot be read ({type(error).__name__})")
        return
    for place, value in _values(content, ""):
        if why := _why_code(place, value):
            yield CodeFound(name, place, why)


def _values(content: Any, place: str) -> Iterable[tuple[str, Any]]:
    """Yield each value with its place, as MONAI writes it: "preprocessing#transforms#0"."""
    waiting = [(place, content)]
    while waiting:
        where, value = waiting.pop()
        prefix = f"{where}#" if where else ""
        if isinstance(value, dict):
            waiting += [(f"{prefix}{key}", inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{prefix}{index}", inner) for index, inner in enumerate(value)]
        yield where, value


def _why_code(place: str, value: Any) -> str:
    """Return what is code about a value, "" if nothing is."""
    if place.rpartition("#")[2] == "_target_":
        return "" if _is_known_target(place, value) else f"_target_ {value}"
    if not isinstance(value, str):
        return ""
    if value.startswith("$") and not _REFERENCE.fullmatch(value):
        return value
    # A macro copies from another file, which may lie anywhere.
    return value if value.startswith("%") and ("::" in value or "/" in value) else ""


def _is_known_target(place: str, target: Any) -> bool:
    if not isinstance(target, str):
        return False
    if _LAYER.fullmatch(target):
        return True
    dotted = _DOTTED.fullmatch(target)
    name = dotted[1] if dotted else target
    if _ABOUT_FILES.fullmatch(name):
        return _LEFT_OUT.fullmatch(place.rpartition("#")[0]) is not None
    return name in _monai_classes() and not _BY_NAME.fullmatch(name)


@lru_cache(maxsize=1)
def _monai_classes() -> frozenset[str]:
    """Return the classes of MONAI that a `_target_` may name, and only those.

    They are read from its source, because importing it takes seconds. A name that another part of
    MONAI defines too is left out: which one is meant depends on the order of its modules.
    """
    found = importlib.util.find_spec("monai")
    if found is None or not found.submodule_search_locations:
        return frozenset()
    root = Path(found.submodule_search_locations[0])
    known: set[str] = set()
    others: set[str] = set()
    for path in root.rglob("*.py"):
        part = path.relative_to(root).parts[0]
        names = known if part in _MONAI_PARTS else others
        names.update(_class_names(path.read_text(encoding="utf-8")))
    return frozenset(known - others)


def _class_names(source: str) -> Iterable[str]:
    for match in _CLASS.finditer(source):
        if match[1]:
            yield match[1]
        else:
            yield from match[2].split(" = ")[:-1]
