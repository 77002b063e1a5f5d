"""What benchmarks write with `--json` is one flat object."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.figures import write_figures


def test_nested_figures_are_written_flat_under_names_without_blanks(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    write_figures(file, {"JPEG-LS": {"decoded ahead": {"clock_s": 0.07123456}}, "rounds": 3})
    assert json.loads(file.read_text()) == {"jpeg_ls_decoded_ahead_clock_s": 0.0712, "rounds": 3}
