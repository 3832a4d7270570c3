"""Paper of known content: price lists and invoices, as programs make them and as scanners see them.

Every paper comes with its truth: the lines of each page in reading order and the products that it names. The same call
makes the same bytes. Fonts are those that every PDF reader has, so nothing depends on the machine's. What is measured
against the truth is the tests' and benches' matter, but for `character_errors`.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import Final

import pypdfium2
from PIL import Image, ImageChops, ImageFilter
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

WIDTH, HEIGHT = A4


@dataclass(frozen=True, slots=True)
class PaperProduct:
    """A product that a paper names. `quantity` and `unit` are what the row says of the amount, if it does."""

    name: str
    price: Decimal
    currency: str
    sku: str | None = None
    ean: str | None = None
    quantity: Decimal | None = None
    unit: str | None = None
    page: int = 1


@dataclass(frozen=True, slots=True)
class Paper:
    """A document and its truth. `lines` has one tuple of lines per page; words of a line are joined by one space.

    `across` has the same for who reads across columns instead of down each: equal, but for papers with two of them.
    """

    name: str
    pdf: bytes
    lines: tuple[tuple[str, ...], ...]
    products: tuple[PaperProduct, ...]
    default_currency: str | None = None
    across: tuple[tuple[str, ...], ...] = ()

    def errors(self, read: str, page: int = 1) -> float:
        """The character error rate of a page that was read, in whichever order of its columns fits better."""
        orders = (self.lines, self.across or self.lines)
        return min(character_errors(read, "\n".join(order[page - 1])) for order in orders)


@dataclass(frozen=True, slots=True)
class Scan:
    """How a scanner saw a paper: one image in shades of grey per page."""

    paper: Paper
    dpi: int
    pages: tuple[Image.Image, ...]

    def png(self, page: int = 1) -> bytes:
        """One page, lossless."""
        return _saved(self.pages[page - 1], "PNG", dpi=(self.dpi, self.dpi))

    def jpeg(self, page: int = 1, *, quality: int = 60) -> bytes:
        """One page, as most scanners send it."""
        return _saved(self.pages[page - 1], "JPEG", quality=quality, dpi=(self.dpi, self.dpi))

    def tiff(self) -> bytes:
        """All pages in one file."""
        first, *others = self.pages
        return _saved(
            first,
            "TIFF",
            save_all=True,
            append_images=[image.copy() for image in others],
            compression="tiff_deflate",
            dpi=(self.dpi, self.dpi),
        )

    def pdf(self) -> bytes:
        """All pages as pictures in a PDF, without a text layer."""
        first, *others = self.pages
        return _saved(
            first, "PDF", save_all=True, append_images=[image.copy() for image in others], resolution=float(self.dpi)
        )


@dataclass(frozen=True, slots=True)
class Variant:
    """A way of scanning."""

    name: str
    dpi: int
    tilt_degrees: float = 0.0
    noise: float = 0.0


VARIANTS: Final = (
    Variant("clean-200", 200),
    Variant("tilted-150", 150, tilt_degrees=1.2, noise=0.08),
    Variant("tilted-300", 300, tilt_degrees=-1.7, noise=0.12),
    Variant("noisy-200", 200, tilt_degrees=0.6, noise=0.2),
)


# -- the papers


@cache
def price_list() -> Paper:
    """A Spanish price list over two pages: code, EAN, name, pack, price in pesos with decimal commas."""
    pages = _Pages("price-list", "ARS")
    products: list[PaperProduct] = []
    for number, chunk in enumerate((_GROCERIES[:14], _GROCERIES[14:]), start=1):
        pages.new()
        if number == 1:
            pages.text(50, "Almacén Peña Señorans S.R.L.", size=16)
            pages.text(50, "Lista de precios mayorista - vigencia: 03/11/2026 - Tel. (011) 4567-8901", size=9)
        pages.row((50, "Código"), (110, "EAN"), (205, "Descripción"), (435, "Unidad"), (545, "Precio"))
        for sku, ean, name, quantity, unit, price in chunk:
            pages.row((50, sku), (110, ean), (205, name), (435, f"{quantity} {unit}"), (545, f"$ {_spanish(price)}"))
            products.append(
                PaperProduct(name, Decimal(price), "ARS", sku, ean, Decimal(quantity.replace(",", ".")), unit, number)
            )
        pages.text(50, f"Página {number} de 2", size=8)
    return pages.paper(products)


@cache
def euro_invoice() -> Paper:
    """A Spanish invoice: quantities, unit prices and amounts in euros, then totals that are no products."""
    pages = _Pages("euro-invoice", "EUR")
    pages.new()
    pages.text(50, "Factura nº 2026-00417", size=15)
    pages.text(50, "Suministros Núñez e Hijos, S.L. - NIF B12345674 - Fecha: 12/10/2026")
    pages.text(50, "Cliente: Cafetería La Cigüeña, Calle Mayor 18, 28013 Madrid")
    pages.row((50, "Ref."), (120, "Artículo"), (360, "Cant."), (460, "P. unitario"), (545, "Importe"))
    products: list[PaperProduct] = []
    total = Decimal(0)
    for sku, name, count, price in _CAFETERIA:
        amount = Decimal(price) * count
        total += amount
        pages.row(
            (50, sku),
            (120, name),
            (360, str(count)),
            (460, f"{_spanish(price)} €"),
            (545, f"{_spanish(str(amount))} €"),
        )
        products.append(PaperProduct(name, Decimal(price), "EUR", sku, quantity=Decimal(count)))
    tax = (total * Decimal("0.21")).quantize(Decimal("0.01"))
    pages.row((460, "Base imponible"), (545, f"{_spanish(str(total))} €"))
    pages.row((460, "IVA 21 %"), (545, f"{_spanish(str(tax))} €"))
    pages.row((460, "Total"), (545, f"{_spanish(str(total + tax))} €"))
    pages.text(50, "Forma de pago: transferencia a 30 días. ¡Gracias por su confianza!")
    return pages.paper(products)


@cache
def dollar_list() -> Paper:
    """An English price list with decimal points, thousands and names that take two lines."""
    pages = _Pages("dollar-list", "USD")
    pages.new()
    pages.text(50, "Harbor & Sons Hardware - Wholesale prices, fall 2026", size=14)
    pages.row((50, "SKU"), (130, "Description"), (430, "Qty"), (545, "Unit price"))
    products: list[PaperProduct] = []
    for sku, name, rest, count, price in _HARDWARE:
        pages.row((50, sku), (130, name), (430, str(count)), (545, f"${Decimal(price):,.2f}"))
        if rest:
            pages.row((130, rest))
        whole = f"{name} {rest}".strip()
        products.append(PaperProduct(whole, Decimal(price), "USD", sku, quantity=Decimal(count)))
    pages.text(50, "Prices without sales tax. Call 555-0142 for orders above $5,000.00.")
    return pages.paper(products)


@cache
def two_columns() -> Paper:
    """A flyer of two columns with headings: name and price only. Its lines are read down the left one first."""
    pages = _Pages("two-columns", "EUR")
    pages.new()
    pages.text(50, "Ofertas de otoño", size=18)
    products: list[PaperProduct] = []
    top = pages.y
    for left, sections in ((50, _FLYER[:2]), (320, _FLYER[2:])):
        pages.y = top
        for heading, goods in sections:
            pages.text(left, heading, size=13)
            for name, price in goods:
                pages.row((left, name), (left + 225, f"{_spanish(price)} €"))
                products.append(PaperProduct(name, Decimal(price), "EUR"))
    one_side, other_side = pages.lines[0][1:9], pages.lines[0][9:]
    across = (pages.lines[0][0], *(f"{one} {other}" for one, other in zip(one_side, other_side, strict=True)))
    return replace(pages.paper(products), across=(across,))


PAPERS: Final[tuple[Callable[[], Paper], ...]] = (price_list, euro_invoice, dollar_list, two_columns)


# -- scanning


@cache
def scanned(paper: Callable[[], Paper], variant: Variant, *, pages: int | None = None) -> Scan:
    """A paper on a scanner's glass: the paper is one of `PAPERS`; `pages` is how many are scanned, all unless said."""
    whole = paper()
    if pages is not None:
        whole = replace(
            whole,
            lines=whole.lines[:pages],
            across=whole.across[:pages],
            products=tuple(product for product in whole.products if product.page <= pages),
        )
    return Scan(whole, variant.dpi, tuple(_glass(image, variant) for image in rendered(whole, dpi=variant.dpi)))


def rendered(paper: Paper, *, dpi: int) -> list[Image.Image]:
    """The pages of a paper as clean pictures, as many as `lines` tells of."""
    with pypdfium2.PdfDocument(paper.pdf) as document:
        return [document[number].render(scale=dpi / 72).to_pil().convert("L") for number in range(len(paper.lines))]


def turned(image: Image.Image, quarter_turns: int) -> Image.Image:
    """A picture of a sheet that lay on its side: turned anticlockwise by so many quarters."""
    return image.rotate(90 * quarter_turns, expand=True)


def character_errors(read: str, truth: str) -> float:
    """Character error rate: edits (Levenshtein) per character of the truth; white space counts as one blank."""
    read, truth = " ".join(read.split()), " ".join(truth.split())
    return _edits(read, truth) / max(1, len(truth))


def _glass(image: Image.Image, variant: Variant) -> Image.Image:
    if variant.tilt_degrees:
        image = image.rotate(variant.tilt_degrees, Image.Resampling.BICUBIC, fillcolor=255)
    if variant.noise:
        # Not `random` noise of its own each time: two runs must see the same sheet.
        grains = random.Random(variant.name).randbytes(image.width * image.height)
        speckled = Image.frombytes("L", image.size, grains).filter(ImageFilter.GaussianBlur(0.6))
        shade = speckled.point([255 - int((255 - value) * variant.noise * 1.5) for value in range(256)])
        image = ImageChops.multiply(image.filter(ImageFilter.GaussianBlur(0.4)), shade)
        image = Image.open(io.BytesIO(_saved(image, "JPEG", quality=55))).convert("L")
    return image


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    # A copy: Pillow leaves notes on an image that it saved, which mislead the writer of another format.
    image.copy().save(buffer, format, **options)
    return buffer.getvalue()


def _edits(left: str, right: str) -> int:
    """Levenshtein's distance, a column in one machine operation on long integers (Myers 1999, Hyyrö 2003)."""
    if not left or not right:
        return len(left) + len(right)
    masks: dict[str, int] = {}
    for place, character in enumerate(left):
        masks[character] = masks.get(character, 0) | 1 << place
    full = (1 << len(left)) - 1
    last = 1 << len(left) - 1
    plus, minus, distance = full, 0, len(left)
    for character in right:
        match = masks.get(character, 0)
        vertical = match | minus
        horizontal = (((match & plus) + plus) ^ plus) | match
        up = (minus | ~(horizontal | plus)) & full
        down = plus & horizontal
        distance += bool(up & last) - bool(down & last)
        up = (up << 1 | 1) & full
        down = (down << 1) & full
        plus = (down | ~(vertical | up)) & full
        minus = up & vertical
    return distance


# -- drawing


class _Pages:
    """A PDF under way, with what was written on it."""

    def __init__(self, name: str, default_currency: str) -> None:
        self.y = 0.0
        self._name = name
        self._default_currency = default_currency
        self._buffer = io.BytesIO()
        self._canvas = Canvas(self._buffer, pagesize=A4, invariant=1)
        self.lines: list[list[str]] = []

    def new(self) -> None:
        """Begin a page."""
        if self.lines:
            self._canvas.showPage()
        self.lines.append([])
        self.y = HEIGHT - 60

    def text(self, x: float, text: str, *, size: float = 10) -> None:
        """A line of prose, with room below."""
        self._canvas.setFont("Helvetica", size)
        self._canvas.drawString(x, self.y, text)
        self.lines[-1].append(text)
        self.y -= size + 12

    def row(self, *cells: tuple[float, str], size: float = 10) -> None:
        """A row of a table; cells at the right end and amounts stand flush right at their place."""
        self._canvas.setFont("Helvetica", size)
        for x, text in cells:
            is_amount = x >= 440 or text.endswith("€")
            (self._canvas.drawRightString if is_amount else self._canvas.drawString)(x, self.y, text)
        self.lines[-1].append(" ".join(text for _, text in cells))
        self.y -= size + 9

    def paper(self, products: Sequence[PaperProduct]) -> Paper:
        """The document."""
        self._canvas.save()
        lines = tuple(tuple(page) for page in self.lines)
        return Paper(self._name, self._buffer.getvalue(), lines, tuple(products), self._default_currency)


def _spanish(amount: str) -> str:
    """An amount with a decimal comma and points between thousands."""
    return f"{Decimal(amount):,.2f}".translate(str.maketrans(",.", ".,"))


_GROCERIES: Final = (
    ("AL-001", "7790895000782", "Yerba mate orgánica", "500", "g", "2350.00"),
    ("AL-002", "7791234567898", "Café tostado molido", "250", "g", "4899.90"),
    ("AL-003", "7790070012050", "Azúcar mascabo", "1", "kg", "1875.50"),
    ("AL-004", "7790580660000", "Dulce de leche clásico", "400", "g", "1649.00"),
    ("AL-005", "8410076472885", "Aceite de oliva extra virgen", "500", "ml", "12499.00"),
    ("AL-006", "7791813423119", "Limón en almíbar", "850", "g", "3120.75"),
    ("AL-007", "4006381333931", "Té de jazmín", "100", "g", "5230.00"),
    ("AL-008", "7790742034502", "Jamón crudo feteado", "150", "g", "6990.00"),
    ("AL-009", "7790310985021", "Galletas de maíz", "300", "g", "1199.99"),
    ("AL-010", "7792798007387", "Ñoquis de papa", "500", "g", "2080.00"),
    ("AL-011", "7790387013627", "Pimentón ahumado", "25", "g", "890.40"),
    ("AL-012", "7798062542479", "Cerveza rubia sin alcohol", "473", "ml", "1560.00"),
    ("AL-013", "7790150570012", "Vinagre de acetobálsamo", "250", "ml", "2740.00"),
    ("AL-014", "7790040930209", "Mermelada de arándanos", "390", "g", "3315.00"),
    ("AL-015", "5901234123457", "Atún al natural", "170", "g", "2145.20"),
    ("AL-016", "7793046001447", "Queso sardo estacionado", "1,5", "kg", "18750.00"),
    ("AL-017", "7790139000523", "Polenta instantánea", "750", "g", "1320.00"),
    ("AL-018", "7791337613027", "Champiñones en lata", "400", "g", "2690.00"),
    ("AL-019", "7794000401389", "Sal marina gruesa", "1", "kg", "780.00"),
    ("AL-020", "9780201379624", "Bombón de cacao amargo", "12", "ud", "9600.00"),
)

_CAFETERIA: Final = (
    ("CF-110", "Café en grano natural 1 kg", 12, "14.95"),
    ("CF-122", "Leche entera 1 l", 48, "0.89"),
    ("CF-205", "Azucarillos en caja de 500", 3, "11.20"),
    ("CF-310", "Servilletas de papel blanco", 20, "1.45"),
    ("CF-318", "Vaso de cartón 240 ml", 10, "6.30"),
    ("CF-402", "Infusión de manzanilla", 15, "2.15"),
    ("CF-415", "Chocolate a la taza", 6, "7.80"),
    ("CF-500", "Molinillo eléctrico profesional", 1, "1249.00"),
    ("CF-611", "Cápsulas de descafeinado", 30, "3.60"),
    ("CF-702", "Jarra de acero para leche", 4, "18.75"),
)

_HARDWARE: Final = (
    ("HB-1001", "Claw hammer, fiberglass handle", "", 12, "18.50"),
    ("HB-1014", "Cordless drill 18V with two batteries", "and carrying case", 3, "149.99"),
    ("HB-1102", "Wood screws 4x40, box of 200", "", 40, "7.25"),
    ("HB-1130", "Adjustable wrench, 10 inch", "", 8, "22.00"),
    ("HB-1205", "Table saw, 10 inch blade", "", 1, "1289.00"),
    ("HB-1251", "Galvanized roofing nails", "", 25, "4.95"),
    ("HB-1300", "Masking tape, blue, 2 inch roll", "", 60, "3.10"),
    ("HB-1377", "Pressure washer 2,000 psi", "with 25 ft hose", 2, "318.40"),
    ("HB-1402", "Work gloves, leather, size L", "", 30, "11.75"),
    ("HB-1488", "Spirit level, aluminum, 4 ft", "", 6, "34.60"),
)

_FLYER: Final = (
    ("Panadería", (("Pan de centeno", "2.40"), ("Ensaimada grande", "9.95"), ("Rosquillas de anís", "3.75"))),
    ("Pescadería", (("Mejillón gallego", "4.20"), ("Lomo de salmón", "16.90"), ("Gambón congelado", "11.50"))),
    ("Frutería", (("Melocotón en bandeja", "2.99"), ("Plátano de Canarias", "1.85"), ("Piña al corte", "3.30"))),
    ("Droguería", (("Champú de romero", "5.60"), ("Jabón líquido", "2.25"), ("Lejía perfumada", "1.40"))),
)
