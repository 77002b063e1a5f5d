"""Code in a program that `torch.export.save` wrote.

Such a program is meant to be a graph of operators with its weights, but its loader also unpickles
objects, evaluates the expressions of sizes with SymPy, which evaluates Python, and takes a node's
operator for any attribute of torch that the name leads to. Pickled tensors are harmless here: hosts
run with `TORCH_FORCE_WEIGHTS_ONLY_LOAD`.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LARGEST_JSON = 256 << 20
_OBJECTS = re.compile(r"(?:^|/)data/constants/(?:custom_obj|opaque_obj)")
_COMPILED = re.compile(r"(?:^|/)data/aotinductor/|\.(?:so|pyd|dll|cubin|cpp|py)$")
_DESCRIPTION = re.compile(r"(?:^|/)models/|\.json$")
_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims|higher_order|quantized_decomposed|torchvision)(?:\.(?!__)\w+){1,2}"
    r"|torch\._?sym_\w+|math\.\w+"
    r"|_operator\.(?:getitem|add|sub|mul|floordiv|truediv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_)"
)
_SIZE = re.compile(r"[A-Za-z0-9_ +\-*/%(),<>=&|~]*")
_NAME = re.compile(r"[A-Za-z_]\w*")
_KNOWN_NAME = re.compile(
    r"[suz]+\d+|Mod|PythonMod|FloorDiv|ModularIndexing|CleanDiv|CeilDiv|IntTrueDiv|FloatTrueDiv"
    r"|Max|Min|Where|Abs|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Piecewise|True|False|ToFloat|TruncToInt"
    r"|CeilToInt|FloorToInt|RoundToInt|PowByNatural|FloatPow|Pow|floor|ceiling|sqrt|Identity"
)


def code_in_program(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of what would run as code when the program is loaded or run."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if _OBJECTS.search(entry.filename):
                    yield entry.filename, "a pickled object"
                elif _COMPILED.search(entry.filename):
                    yield entry.filename, "compiled code"
                elif _DESCRIPTION.search(entry.filename):
                    yield from _in_json(archive, entry)
    except (OSError, ValueError, RecursionError, RuntimeError, zipfile.BadZipFile) as error:
        yield "", f"cannot be read as an exported program ({type(error).__name__})"


def _in_json(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[tuple[str, str]]:
    if entry.file_size > _LARGEST_JSON:
        yield entry.filename, "too large to be looked through"
        return
    waiting: list[Any] = [json.loads(archive.read(entry))]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
            yield from ((entry.filename, why) for why in _in_node(value))
        elif isinstance(value, list):
            waiting += value


def _in_node(node: dict[str, Any]) -> Iterator[str]:
    is_node = "target" in node and ("inputs" in node or "outputs" in node)
    if is_node and not _OPERATOR.fullmatch(str(node["target"])):
        yield f"operator {node['target']}"
    if "expr_str" in node and not _is_size(str(node["expr_str"])):
        yield f"expression {node['expr_str']}"
    path = node.get("path_name")
    if isinstance(path, str) and path.startswith(("custom_obj", "opaque_obj")):
        yield f"a pickled object {path}"


def _is_size(expression: str) -> bool:
    """Return whether it is arithmetic of sizes: no attribute, no text, no other function."""
    if not _SIZE.fullmatch(expression):
        return False
    return all(_KNOWN_NAME.fullmatch(name) for name in _NAME.findall(expression))
