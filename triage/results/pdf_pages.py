"""The pages of the report: an A4 layout that knows nothing of DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from io import BytesIO
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, Spacer, Table, TableStyle
from reportlab.platypus.doctemplate import SimpleDocTemplate

_FONT, _BOLD = "DejaVuSans", "DejaVuSans-Bold"
_JAPANESE, _KOREAN = "HeiseiKakuGo-W5", "HYGothic-Medium"
_HANGUL = ((0x1100, 0x11FF), (0x3130, 0x318F), (0xAC00, 0xD7AF))
_MARGIN = 16 * mm
_WIDTH = A4[0] - 2 * _MARGIN - 12  # a frame pads its content by 6 points on each side
_JPEG_QUALITY = 90
_INK, _GRAY, _LINE = HexColor(0x1A1F26), HexColor(0x5B6672), HexColor(0xC9D0D8)
_WARNING, _FOUND = HexColor(0x8A4B00), HexColor(0xB3261E)


@dataclass(frozen=True, slots=True)
class Row:
    """A label and what stands beside it; without a value it is left out."""

    label: str
    value: object


@dataclass(frozen=True, slots=True)
class Statement:
    """A line of the table of findings."""

    finding: str
    is_present: bool
    confidence: str = ""
    measurements: str = ""
    site: str = ""
    priority: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels, uint8 of shape (rows, columns, 3), and what is said below them."""

    pixels: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True, slots=True)
class Pages:
    """What stands on the pages of a report."""

    title: str
    warning: str
    notice: str
    outcome: str
    patient: Sequence[Row]
    study: Sequence[Row]
    statements: Sequence[Statement]
    pictures: Sequence[Picture]
    origin: Sequence[Row]

    def render(self) -> bytes:
        """Return the PDF; the same content gives the same bytes."""
        _register_fonts()
        buffer = BytesIO()
        document = SimpleDocTemplate(
            buffer,
            pagesize=A4,
            leftMargin=_MARGIN,
            rightMargin=_MARGIN,
            topMargin=_MARGIN,
            bottomMargin=_MARGIN + 6 * mm,
            title=self.title,
            author="Triage",
            subject=self.warning,
            invariant=1,
        )
        document.build(self._story(), onFirstPage=self._footer, onLaterPages=self._footer)
        return buffer.getvalue()

    def _story(self) -> list[Flowable]:
        story: list[Flowable] = [
            Paragraph(marked_up(self.title, bold=True), _style(15, leading=19)),
            Spacer(0, 2 * mm),
            _banner([self.warning, self.notice]),
            Spacer(0, 3 * mm),
            _side_by_side(self.patient, self.study),
            Spacer(0, 5 * mm),
            Paragraph(marked_up(self.outcome, bold=True), _style(12, leading=16)),
            Spacer(0, 1.5 * mm),
            _statements(self.statements),
            Spacer(0, 5 * mm),
        ]
        if self.pictures:
            story += [_pictures(self.pictures), Spacer(0, 4 * mm)]
        story.append(KeepTogether(_rows(self.origin, _WIDTH)))
        return story

    def _footer(self, canvas: Canvas, document: SimpleDocTemplate) -> None:
        """Say on every page what it is and whose: pages get separated."""
        whose = ", ".join(str(row.value) for row in self.patient[:2] if row.value)
        line = Paragraph(
            marked_up(f"{self.warning} · {whose} · page {document.page}"), _style(7.5, color=_GRAY)
        )
        line.wrapOn(canvas, _WIDTH, 10 * mm)
        line.drawOn(canvas, _MARGIN, 10 * mm)


@cache
def _register_fonts() -> None:
    # matplotlib ships DejaVu, so that the report looks the same on every machine.
    for name in (_FONT, _BOLD):
        pdfmetrics.registerFont(TTFont(name, _font_file(name)))
    for name in (_JAPANESE, _KOREAN):
        pdfmetrics.registerFont(UnicodeCIDFont(name))


def _font_file(name: str) -> Path:
    return Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"


def marked_up(text: str, *, bold: bool = False) -> str:
    """Return plain text as reportlab's markup, each character in a font that has it.

    DejaVu has the Latin, Greek, Cyrillic, Arabic and Hebrew letters; for Chinese, Japanese and
    Korean a font is named that PDF readers bring along.
    """
    _register_fonts()
    own = _BOLD if bold else _FONT
    runs = groupby(text, lambda character: _font_of(character, own))
    return "".join(f'<font name="{name}">{escape("".join(run))}</font>' for name, run in runs)


def _font_of(character: str, own: str) -> str:
    if character.isspace() or ord(character) in _letters(own):
        return own
    is_hangul = any(first <= ord(character) <= last for first, last in _HANGUL)
    return _KOREAN if is_hangul else _JAPANESE


@cache
def _letters(font: str) -> frozenset[int]:
    """Return the code points that one of the embedded fonts has."""
    return frozenset(TTFont(font, _font_file(font)).face.charToGlyph)


def _style(size: float, *, leading: float = 0, color: Color = _INK) -> ParagraphStyle:
    return ParagraphStyle(
        f"{size}", fontName=_FONT, fontSize=size, leading=leading or 1.35 * size, textColor=color
    )


def _banner(lines: Sequence[str]) -> Flowable:
    style = _style(9.5, color=_WARNING)
    said = [Paragraph(marked_up(line, bold=True), style) for line in lines if line]
    table = Table([[said]], colWidths=[_WIDTH])
    table.setStyle(
        TableStyle([("BOX", (0, 0), (-1, -1), 1, _WARNING), ("PADDING", (0, 0), (-1, -1), 5)])
    )
    return table


def _side_by_side(left: Sequence[Row], right: Sequence[Row]) -> Flowable:
    half = _WIDTH / 2
    table = Table([[_rows(left, half), _rows(right, half)]], colWidths=[half, half])
    table.setStyle(
        TableStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("PADDING", (0, 0), (-1, -1), 0)])
    )
    return table


def _rows(rows: Sequence[Row], width: float) -> Flowable:
    said = [
        [
            Paragraph(marked_up(row.label), _style(8.5, color=_GRAY)),
            Paragraph(marked_up(str(row.value).strip()), _style(8.5)),
        ]
        for row in rows
        if str(row.value or "").strip()
    ]
    table = Table(said or [["", ""]], colWidths=[25 * mm, width - 25 * mm])
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (0, -1), 0),
                ("TOPPADDING", (0, 0), (-1, -1), 1),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
            ]
        )
    )
    return table


def _statements(statements: Sequence[Statement]) -> Flowable:
    head = ("Finding", "Result", "Confidence", "Measurements", "Site", "Priority")
    cells = [[Paragraph(marked_up(title), _style(8, color=_GRAY)) for title in head]]
    for one in statements:
        said = (
            one.finding,
            "Present" if one.is_present else "Not found",
            one.confidence,
            one.measurements,
            one.site,
            one.priority,
        )
        style = _style(9, color=_FOUND if one.is_present else _INK)
        bold = (one.is_present, one.is_present, False, False, False, False)
        cells.append(
            [Paragraph(marked_up(t, bold=b), style) for t, b in zip(said, bold, strict=True)]
        )
    shares = (0.27, 0.13, 0.13, 0.22, 0.14, 0.11)
    table = Table(cells, colWidths=[share * _WIDTH for share in shares], repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LINEBELOW", (0, 0), (-1, -1), 0.5, _LINE),
                ("LEFTPADDING", (0, 0), (0, -1), 0),
            ]
        )
    )
    return table


def _pictures(pictures: Sequence[Picture]) -> Flowable:
    """Return the pictures in two columns, or a single one in the middle."""
    width = _WIDTH / 2
    cells = [_picture(one, width - 4 * mm) for one in pictures]
    rows = [cells[i : i + 2] for i in range(0, len(cells), 2)]
    rows[-1] += [[]] * (2 - len(rows[-1]))
    table = Table(rows, colWidths=[width, width])
    table.setStyle(
        TableStyle(
            [
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ]
        )
    )
    return table


def _picture(picture: Picture, width: float) -> list[Flowable]:
    rows, columns = picture.pixels.shape[:2]
    height = width * rows / columns
    if height > width:
        width, height = width * width / height, width
    buffer = BytesIO()
    PillowImage.fromarray(picture.pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    buffer.seek(0)
    image = Image(buffer, width=width, height=height)
    image.hAlign = "LEFT"
    return [image, Paragraph(marked_up(picture.caption), _style(7.5, color=_GRAY))]
