"""What a trained model's own file says: of which kind it is, what it takes and what it gives."""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triage.core.errors import TriageError
from triage.models.exported_code import code_in_program


class ScaffoldError(TriageError):
    """No package can be made of this; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model's file, as far as it describes itself.

    Attributes:
        kind: the kind of runner.
        path: the file.
        input_shape: of its first input, None in it where a length may vary; empty if not said.
        output_shape: the same of its first output.
        entry: of a Python model "MODULE:CLASS".
    """

    kind: str
    path: Path
    input_shape: tuple[int | None, ...] = ()
    output_shape: tuple[int | None, ...] = ()
    entry: str = ""

    @property
    def image_size(self) -> int | None:
        """Rows and columns of a model of square images, None of any other."""
        is_square = len(self.input_shape) == 4 and self.input_shape[2] == self.input_shape[3]
        return self.input_shape[2] if is_square else None

    @property
    def channels(self) -> int | None:
        """How many channels it gives, None if it does not say."""
        return self.output_shape[1] if len(self.output_shape) > 1 else None


def read_model_file(path: Path) -> ModelFile:
    """Return what the file of a network or a Python model says of itself.

    Nothing in it is run, and no pickle is read.

    Raises:
        ScaffoldError: it is of no kind that Triage runs.
    """
    if path.suffix == ".onnx":
        return _onnx(path)
    if path.suffix == ".py":
        return _python(path)
    names = _names_in_zip(path)
    if any(name.endswith("constants.pkl") for name in names):
        return ModelFile("torchscript", path)
    if any(name.rpartition("/")[2] == "archive_format" for name in names) or path.suffix == ".pt2":
        return _torch_export(path)
    raise ScaffoldError(
        f"{path}: neither TorchScript (torch.jit.save), a program (torch.export.save), ONNX, a "
        "Python file nor a MONAI bundle; a state dictionary alone does not say which network it "
        "belongs to: export the network with it"
    )


def _names_in_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return []


def _onnx(path: Path) -> ModelFile:
    import onnxruntime  # noqa: PLC0415 - only this kind needs it

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise ScaffoldError(f"{path}: ONNX Runtime cannot load it: {error}") from error
    return ModelFile(
        "onnx",
        path,
        _lengths(session.get_inputs()[0].shape),
        _lengths(session.get_outputs()[0].shape),
    )


def _torch_export(path: Path) -> ModelFile:
    for _, what in code_in_program(path):
        if what.startswith("cannot be read"):
            raise ScaffoldError(f"{path}: {what}")
        # Its loader would run it; without loading nobody knows what it takes and gives.
        return ModelFile("torch-export", path)
    import torch  # noqa: PLC0415 (it takes long, and only this kind needs it)

    try:
        program = torch.export.load(path)
    except Exception as error:  # whatever a damaged archive brings out
        raise ScaffoldError(f"{path}: torch.export cannot load it: {error}") from error
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    return ModelFile(
        "torch-export",
        path,
        _shape_of(nodes, signature.user_inputs),
        _shape_of(nodes, signature.user_outputs),
    )


def _shape_of(nodes: dict[str, Any], names: Sequence[object]) -> tuple[int | None, ...]:
    value = nodes[str(names[0])].meta.get("val") if names else None
    return _lengths(getattr(value, "shape", ()))


def _lengths(shape: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(length if isinstance(length, int) else None for length in shape)


def _python(path: Path) -> ModelFile:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ScaffoldError(f"{path}: not a Python file: {error}") from error
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = {m.name for m in node.body if isinstance(m, ast.FunctionDef)}
            if {"load", "predict"} <= methods:
                return ModelFile("python", path, entry=f"{path.stem}:{node.name}")
    raise ScaffoldError(
        f"{path}: no class in it has the methods load(folder, device) and predict(model_input); "
        "write one"
    )
