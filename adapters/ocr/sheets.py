"""Documents as sheets: PDFs, pictures and TIFFs of many pages behind one face.

The decoders are the ones named here and no others. Everything is measured before it is decoded: the number of pages,
the size of a picture, the size of what is rendered.
"""

from __future__ import annotations

import math
import warnings
from contextlib import closing
from typing import Any, Final, Protocol

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image, ImageOps

from adapters.ocr.layer import Layer, read_layer
from adapters.ocr.protocol import Fault

FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "TIFF")
MAX_PAGE_PIXELS: Final = 40_000_000
MIN_DPI: Final = 70
LEAST_TRUSTED_DPI: Final = 100
MAX_ASSUMED_DPI: Final = 400
A4_INCHES: Final = 11.7
MAX_DPI: Final = 1_200
MIN_SIDE: Final = 8
"""Pixels: nothing can be read in less."""
POINTS: Final = 72


class Unreadable(Exception):
    """A document or a page that cannot be read; the text is for people."""

    def __init__(self, message: str, fault: Fault = Fault.INVALID_INPUT) -> None:
        super().__init__(message)
        self.fault = fault


class Document(Protocol):
    """An open document. Pages count from 1."""

    pages: int

    def size(self, number: int) -> tuple[float, float]:
        """Width and height of a page: points for PDFs, pixels for pictures. Raises Unreadable."""

    def layer(self, number: int) -> Layer | None:
        """The text layer of a page, if it has one that can be trusted."""

    def picture(self, number: int) -> tuple[Image.Image, int]:
        """A page in shades of grey, at most MAX_PAGE_PIXELS, and its resolution in dpi. Raises Unreadable."""


def open_document(path: str, *, is_pdf: bool, dpi: int, max_pixels: int) -> Document:
    """Open a document; raises Unreadable."""
    return PdfFile(path, dpi=dpi) if is_pdf else Pictures(path, max_pixels=max_pixels)


class PdfFile:
    """A PDF, through PDFium."""

    def __init__(self, path: str, *, dpi: int) -> None:
        self._dpi = dpi
        try:
            self._document = pypdfium2.PdfDocument(path)
        except pypdfium2.PdfiumError as error:
            if error.err_code in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
                raise Unreadable("The PDF is encrypted; remove its password first.") from None
            raise Unreadable("The file is damaged or no PDF.") from None
        self.pages = len(self._document)

    def size(self, number: int) -> tuple[float, float]:
        """See Document."""
        with closing(self._page(number)) as page:
            width, height = page.get_size()
        if not (0 < width < math.inf and 0 < height < math.inf):
            raise Unreadable("The page has no size.")
        return width, height

    def layer(self, number: int) -> Layer | None:
        """See Document."""
        with closing(self._page(number)) as page:
            return read_layer(page)

    def picture(self, number: int) -> tuple[Image.Image, int]:
        """See Document."""
        width, height = self.size(number)
        scale = min(self._dpi / POINTS, math.sqrt(MAX_PAGE_PIXELS / (width * height)))
        # A page that is one long line must not become a picture of no height.
        if min(width, height) * scale < 1 or max(width, height) * scale > MAX_PAGE_PIXELS / MIN_SIDE:
            raise Unreadable("The page is too narrow to be read.")
        with closing(self._page(number)) as page:
            image: Image.Image = page.render(scale=scale, grayscale=True).to_pil()
        return image.convert("L"), max(MIN_DPI, round(scale * POINTS))

    def _page(self, number: int) -> pypdfium2.PdfPage:
        try:
            return self._document[number - 1]
        except pypdfium2.PdfiumError:
            raise Unreadable("The page is damaged.") from None


class Pictures:
    """A picture, or a TIFF with one per page, through Pillow. Of a moving one the first frame is read."""

    def __init__(self, path: str, *, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        Image.MAX_IMAGE_PIXELS = max_pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        self._number = 0
        self._shown: tuple[Image.Image, int] | None = None
        try:
            self._file: Any = Image.open(path, formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise self._too_large() from None
        except Exception:  # noqa: BLE001 - decoders raise what they like for bytes that they do not like
            raise Unreadable("The file is damaged or no picture of a kind that can be read.") from None
        self.pages = self._count()

    def size(self, number: int) -> tuple[float, float]:
        """See Document."""
        image, _ = self._page(number)
        return float(image.width), float(image.height)

    def layer(self, number: int) -> Layer | None:
        """See Document; pictures have none."""
        del number
        return None

    def picture(self, number: int) -> tuple[Image.Image, int]:
        """See Document."""
        image, dpi = self._page(number)
        if min(image.size) < MIN_SIDE:
            raise Unreadable("The picture is too small to be read.")
        pixels = image.width * image.height
        if pixels > MAX_PAGE_PIXELS:
            part = math.sqrt(MAX_PAGE_PIXELS / pixels)
            image = image.resize((int(image.width * part), int(image.height * part)), Image.Resampling.BOX)
            dpi = max(MIN_DPI, int(dpi * part))
        return image, dpi

    def _count(self) -> int:
        if self._file.format != "TIFF":
            return 1
        try:
            return int(self._file.n_frames)
        except Exception:  # noqa: BLE001 - see above
            raise Unreadable("The TIFF's list of pages is damaged.") from None

    def _page(self, number: int) -> tuple[Image.Image, int]:
        if self._number != number or self._shown is None:
            self._shown = None
            try:
                self._shown = self._decode(number)
            except (Unreadable, MemoryError):
                raise
            except (Image.DecompressionBombError, Image.DecompressionBombWarning):
                raise self._too_large() from None
            except Exception:  # noqa: BLE001 - see above
                raise Unreadable("The picture is damaged.") from None
            self._number = number
        return self._shown

    def _decode(self, number: int) -> tuple[Image.Image, int]:
        frame = self._file
        if number > 1 or self._file.format == "TIFF":
            frame.seek(number - 1)
        if frame.width * frame.height > self._max_pixels:
            raise self._too_large()
        frame.load()
        return ImageOps.exif_transpose(_grey(frame)), _resolution(frame)

    def _too_large(self) -> Unreadable:
        return Unreadable(f"The picture is larger than {self._max_pixels // 1_000_000} megapixels.")


def _grey(image: Image.Image) -> Image.Image:
    """Shades of grey on white paper, whatever the picture has: palettes, transparency, 16 bits."""
    if image.mode.startswith("I;16"):
        grey = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    elif image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        layers = image.convert("RGBA")
        paper = Image.new("RGBA", layers.size, "white")
        grey = Image.alpha_composite(paper, layers).convert("L")
    else:
        grey = image.convert("L")
    exif = image.getexif()
    if exif:
        grey.info["exif"] = exif.tobytes()
    return grey


def _resolution(image: Image.Image) -> int:
    """What the picture says of its resolution, unless it is a screen's, which cameras write; then that of a full A4."""
    try:
        dpi = float(image.info["dpi"][0])
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError):
        dpi = 0.0
    if not LEAST_TRUSTED_DPI <= dpi <= MAX_DPI:
        dpi = min(max(max(image.size) / A4_INCHES, MIN_DPI), MAX_ASSUMED_DPI)
    return round(dpi)
