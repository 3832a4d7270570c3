"""Engines that recognise text in a picture: Tesseract as a library, or as a program where there is no library.

Both read a page as one column of rows (page segmentation mode 4): what is read here are tables, whose columns the
automatic mode would tear apart. docs/decisions/0033 has the numbers.
"""

from __future__ import annotations

import csv
import io
import math
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol

from PIL import Image

from adapters.ocr.boxes import Box, slope_degrees

SINGLE_COLUMN: Final = 4
ORIENTATION_ONLY: Final = 0
MIN_BASELINE: Final = 60
"""Pixels: shorter lines say little about the slope."""
MIN_ORIENTATION_CONFIDENCE: Final = 1.0


class EngineMissing(Exception):
    """There is no engine on this machine."""


class TookTooLong(Exception):
    """The engine did not end in the time it had."""


@dataclass(frozen=True, slots=True)
class Sight:
    """The words that were recognised, in pixels, and how far the sheet lies turned clockwise, in degrees."""

    words: list[Box]
    slope: float


class Engine(Protocol):
    """Recognises text."""

    name: str

    def read(self, image: Image.Image, *, dpi: int, seconds: float) -> Sight:
        """The words in a picture in shades of grey; raises TookTooLong."""

    def turned(self, image: Image.Image, *, seconds: float) -> int:
        """By how many degrees (0, 90, 180, 270) the picture has to be turned anticlockwise to be upright; 0 if unknown.

        Raises TookTooLong.
        """


def open_engine(data_path: str, languages: Sequence[str]) -> Engine:
    """The library if it can be imported, else the program; raises EngineMissing."""
    try:
        import tesserocr  # noqa: F401 - there is no wheel for every system
    except ImportError:
        return TesseractProgram(data_path, languages)
    return TesseractLibrary(data_path, languages)


class TesseractLibrary:
    """Tesseract inside of this process, through `tesserocr`."""

    def __init__(self, data_path: str, languages: Sequence[str]) -> None:
        import tesserocr

        self._library: Any = tesserocr
        self._data_path = data_path
        version = tesserocr.tesseract_version().split()[1]
        self.name = f"tesserocr {tesserocr.__version__} (Tesseract {version})"
        self._reader: Any = tesserocr.PyTessBaseAPI(
            path=data_path, lang="+".join(languages), psm=tesserocr.PSM.SINGLE_COLUMN
        )
        self._compass: Any = None

    def read(self, image: Image.Image, *, dpi: int, seconds: float) -> Sight:
        """See Engine."""
        reader = self._reader
        try:
            reader.SetImage(image)
            reader.SetSourceResolution(dpi)
            if not reader.Recognize(timeout=max(1, int(seconds * 1_000))):
                raise TookTooLong
            found = reader.GetIterator()
            return Sight(self._words(found), self._slope(reader.GetIterator()))
        finally:
            reader.Clear()

    def turned(self, image: Image.Image, *, seconds: float) -> int:
        """See Engine."""
        if self._compass is None:
            try:
                self._compass = self._library.PyTessBaseAPI(
                    path=self._data_path, lang="osd", psm=self._library.PSM.OSD_ONLY
                )
            except RuntimeError:
                return 0  # without its data nobody knows
        self._compass.SetImage(image)
        told = self._compass.DetectOrientationScript()
        self._compass.Clear()
        if not told or told["orient_conf"] < MIN_ORIENTATION_CONFIDENCE:
            return 0
        return int(told["orient_deg"]) % 360

    def _words(self, found: Any) -> list[Box]:
        if found is None:
            return []
        level = self._library.RIL.WORD
        words = []
        for word in self._library.iterate_level(found, level):
            box = word.BoundingBox(level)
            if box is None:
                continue
            left, top, right, bottom = map(float, box)
            text = (word.GetUTF8Text(level) or "").strip()
            words.append(Box(text, left, top, right, bottom, float(word.Confidence(level))))
        return words

    def _slope(self, found: Any) -> float:
        if found is None:
            return 0.0
        level = self._library.RIL.TEXTLINE
        slopes = []
        for line in self._library.iterate_level(found, level):
            baseline = line.Baseline(level)
            if baseline:  # False where there is none
                (left, start), (right, end) = baseline
                if right - left >= MIN_BASELINE:
                    slopes.append(math.degrees(math.atan2(end - start, right - left)))
        return statistics.median(slopes) if slopes else 0.0


class TesseractProgram:
    """Tesseract as a program, fed through its standard input; about half as fast, as it starts for every page."""

    def __init__(self, data_path: str, languages: Sequence[str], program: str = "tesseract") -> None:
        found = shutil.which(program)
        if found is None:
            raise EngineMissing("neither tesserocr nor the program tesseract is installed")
        self._command = [found, "stdin", "stdout", "--tessdata-dir", data_path]
        self._languages = "+".join(languages)
        version = subprocess.run([found, "--version"], capture_output=True, check=False)  # noqa: S603 - no shell
        first_line = (version.stdout or version.stderr).decode(errors="replace").splitlines()[:1]
        self.name = (first_line[0] if first_line else "tesseract")[:64]

    def read(self, image: Image.Image, *, dpi: int, seconds: float) -> Sight:
        """See Engine."""
        # By its variable: `tsv`, the file that sets it, is not in a folder of ours.
        table = ["-c", "tessedit_create_tsv=1"]
        options = ["-l", self._languages, "--psm", str(SINGLE_COLUMN), "--dpi", str(dpi), *table]
        code, out, stray = self._run(image, options, seconds)
        if code:
            raise RuntimeError(f"tesseract ended with code {code}: {stray[-200:]}")
        return self._sight(out)

    def turned(self, image: Image.Image, *, seconds: float) -> int:
        """See Engine."""
        # A page with too few letters to tell is an error to the program, as is missing data: both are unknown here.
        _, out, _ = self._run(image, ["--psm", str(ORIENTATION_ONLY)], seconds)
        for line in out.splitlines():
            name, _, value = line.partition(":")
            if name == "Orientation in degrees" and value.strip().isdigit():
                return int(value) % 360
        return 0

    def _run(self, image: Image.Image, options: Sequence[str], seconds: float) -> tuple[int, str, str]:
        picture = io.BytesIO()
        image.save(picture, "PPM")
        try:
            done = subprocess.run(  # noqa: S603 - no shell, and nothing of the document's is in the command
                [*self._command, *options],
                input=picture.getvalue(),
                capture_output=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TookTooLong from None
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace").strip()

    @staticmethod
    def _sight(table: str) -> Sight:
        lines: list[list[Box]] = []
        records = csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE)
        words = (record for record in records if record.get("level") == "5")
        for _, line in groupby(words, key=lambda word: (word["block_num"], word["par_num"], word["line_num"])):
            boxes = []
            for word in line:
                left, top = float(word["left"]), float(word["top"])
                right, bottom = left + float(word["width"]), top + float(word["height"])
                text = (word["text"] or "").strip()
                boxes.append(Box(text, left, top, right, bottom, max(0.0, float(word["conf"]))))
            lines.append(boxes)
        return Sight([box for line in lines for box in line], slope_degrees(lines))
