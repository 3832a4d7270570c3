"""Products on paper: amounts, codes and quantities as they are written, and which rows of which tables are products.

Pages are drawn by hand: a row is a height and cells, each a place and a text, in thousandths of the page.
"""

from __future__ import annotations

import math
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ocr.candidates import find_candidates
from tasks.ocr.codes import find_gtin, find_sku, is_gtin
from tasks.ocr.money import Convention, convention, currency_of, parse_money
from tasks.ocr.page_words import Candidate, PageWords, Word
from tasks.ocr.quantities import parse_quantity, quantity_in_name

POINT = Convention(".", 1.0)
COMMA = Convention(",", 1.0)
UNKNOWN = Convention()
Row = tuple[float, list[tuple[float, str]]]


def page(*rows: Row, number: int = 1, confidence: float | None = None, size: float = 12) -> PageWords:
    """A page of 1000 by 1000 with words of 6 for each letter."""
    words = []
    for top, cells in rows:
        for left, text in cells:
            for token in text.split():
                right = left + 6 * len(token)
                words.append(Word(token, left / 1e3, top / 1e3, right / 1e3, (top + size) / 1e3, confidence))
                left = right + 4
    return PageWords(number, 1_000.0, 1_000.0, tuple(words))


def table(head: list[tuple[float, str]], *rows: list[tuple[float, str]], number: int = 1) -> PageWords:
    return page(*((100 + 20 * place, cells) for place, cells in enumerate([head, *rows])), number=number)


def found(*pages: PageWords, currency: str | None = "EUR") -> list[Candidate]:
    return find_candidates(pages, default_currency=currency)


def named(*pages: PageWords) -> list[tuple[str, Decimal | None]]:
    return [(candidate.name, candidate.price) for candidate in found(*pages)]


# -- money


@pytest.mark.parametrize(
    ("text", "habit", "amount", "currency"),
    [
        ("1.299,00 €", UNKNOWN, "1299", "EUR"),
        ("€1,299.00", UNKNOWN, "1299", "EUR"),
        ("$ 1.250.000", UNKNOWN, "1250000", None),
        ("R$ 12,50", UNKNOWN, "12.5", "BRL"),
        ("MX$12.50", UNKNOWN, "12.5", "MXN"),
        ("₡ 5.500", COMMA, "5500", "CRC"),
        ("S/ 15.90", UNKNOWN, "15.9", "PEN"),
        ("S/.15.90", UNKNOWN, "15.9", "PEN"),
        ("Q12.50", UNKNOWN, "12.5", "GTQ"),
        ("L. 250.00", UNKNOWN, "250", "HNL"),
        ("Gs. 15.000", COMMA, "15000", "PYG"),
        ("U$S 99,90", UNKNOWN, "99.9", "USD"),
        ("US$ 99.90", UNKNOWN, "99.9", "USD"),
        ("£3", UNKNOWN, "3", "GBP"),
        ("12.50 USD", UNKNOWN, "12.5", "USD"),
        ("CLP 12.990", COMMA, "12990", "CLP"),
        ("$ 12 USD", UNKNOWN, "12", "USD"),
        ("1’250.00", UNKNOWN, "1250", None),
        ("1'250'000", UNKNOWN, "1250000", None),
        ("1 250,00 €", UNKNOWN, "1250", "EUR"),
        ("2 x $15.00", UNKNOWN, "15", None),
        ("4,20 €/kg", UNKNOWN, "4.2", "EUR"),
        ("12,- €", UNKNOWN, "12", "EUR"),
        ("1.250", POINT, "1.25", None),
        ("1.250", COMMA, "1250", None),
        ("0.125", COMMA, "0.125", None),
    ],
)
def test_amounts_are_read_as_they_are_written(text: str, habit: Convention, amount: str, currency: str | None) -> None:
    money = parse_money(text, habit)
    assert money is not None
    assert (money.amount, money.currency) == (Decimal(amount), currency)
    assert money.certainty >= 0.6


@pytest.mark.parametrize(
    "text",
    [
        "",
        "€",
        "abc",
        "12/10/2026",
        "12.10.2026",
        "555-0142",
        "(011) 4567-8901",
        "500 g",
        "1 L",
        "18V",
        "21 %",
        "-5,00 €",
        "0,00 €",
        "1.25.000",
        "12,34,56.7.8",
        "S/",
        "SO",
        "B",
        "B5",
        "7" * 60,
        "99999999999999",
        "1,23456 €",
        "5 € 6 £",
    ],
)
def test_what_is_no_amount_is_none(text: str) -> None:
    assert parse_money(text, COMMA) is None


@pytest.mark.parametrize(
    ("text", "amount"), [("Gs. 45.000", 45_000), ("₲45.000", 45_000), ("CLP 1.250", 1_250), ("¥1,200", 1_200)]
)
@pytest.mark.parametrize("habit", [POINT, COMMA, UNKNOWN])
def test_currencies_without_a_smaller_unit_have_thousands(text: str, amount: int, habit: Convention) -> None:
    money = parse_money(text, habit)
    assert money is not None
    assert (money.amount, money.decimals, money.certainty) == (Decimal(amount), 0, 1.0)


@pytest.mark.parametrize(("text", "amount"), [("$ l2.50", "12.5"), ("$1O.00", "10"), ("S/ 1S.90", "15.9")])
def test_letters_among_digits_are_hardly_believed(text: str, amount: str) -> None:
    money = parse_money(text, POINT)
    assert money is not None
    assert money.amount == Decimal(amount)
    assert money.certainty <= 0.3


def test_a_document_says_how_it_writes_decimals() -> None:
    assert convention(["1.299,00", "5,50", "1.250", "3.14"], None).decimal == ","
    assert convention(["$18.50", "1,289.00", "12.10.2026"], None).decimal == "."
    assert convention(["1.250", "abc"], "COP") == Convention(",", 0.0)
    assert convention(["1.250"], "USD").decimal == "."
    assert convention(["1.250"], None) == Convention()
    against = parse_money("5.50", COMMA)
    assert against is not None
    assert against.certainty == 0.7


def test_a_bare_dollar_is_that_of_the_document_and_no_other() -> None:
    money = parse_money("$5.00", POINT)
    assert money is not None
    assert currency_of(money, "MXN")[0] == "MXN"
    assert currency_of(money, "EUR") == (None, 0.0)
    assert currency_of(money, None) == (None, 0.0)


# -- codes and quantities


@pytest.mark.parametrize("digits", ["96385074", "036000291452", "4006381333931", "10012345678902"])
def test_check_digits_prove_gtins(digits: str) -> None:
    assert is_gtin(digits)
    assert not is_gtin(digits[:-1] + str((int(digits[-1]) + 1) % 10))


def test_gtins_are_found_in_spite_of_letters_and_not_by_chance() -> None:
    assert find_gtin("4OO6381333931", is_labelled=True) == ("4006381333931", 0.7)
    assert find_gtin("4 006381 333931", is_labelled=True) == ("4006381333931", 1.0)
    assert find_gtin("96385074", is_labelled=False) is None
    assert find_gtin("4006381333932", is_labelled=True) is None
    assert not is_gtin("0000000000000")
    assert not is_gtin("٤٠٠٦٣٨١٣٣٣٩٣١")


@pytest.mark.parametrize("text", ["AL-001", "HB1014", "CF-110", "1234-AB"])
def test_codes_are_known_by_their_shape(text: str) -> None:
    assert find_sku(text, is_labelled=False) == (text, 0.9)


@pytest.mark.parametrize("text", ["500g", "12/10/2026", "555-0142", "Pan", "€"])
def test_measures_dates_and_phones_are_no_codes(text: str) -> None:
    assert find_sku(text, is_labelled=False) is None


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("500 g", "500", "g"),
        ("1,5 kg", "1.5", "kg"),
        ("12", "12", None),
        ("12 uds.", "12", "ud"),
        ("3 cajas", "3", "caja"),
        ("Pack 6 x 330 ml", "6", "330 ml"),
        ("6x33cl", "6", "33 cl"),
        ("caja de 12", "12", "ud"),
        ("pza", None, "pza"),
        ("1 L", "1", "l"),
        ("10 m2", "10", "m2"),
    ],
)
def test_quantities_are_read(text: str, number: str | None, unit: str | None) -> None:
    quantity = parse_quantity(text, COMMA)
    assert quantity is not None
    assert (quantity.number, quantity.unit) == (Decimal(number) if number else None, unit)


@pytest.mark.parametrize("text", ["", "Pan", "0 g", "10 inch", "4x40", "1,23456 kg", "x" * 100])
def test_what_is_no_quantity_is_none(text: str) -> None:
    assert parse_quantity(text, COMMA) is None


def test_names_end_with_their_contents() -> None:
    quantity = quantity_in_name("Leche entera 1 l", COMMA)
    assert quantity is not None
    assert (quantity.number, quantity.unit) == (Decimal(1), "l")
    assert quantity_in_name("Tornillo 4x40", COMMA) is None
    assert quantity_in_name("Taladro 18", COMMA) is None


# -- tables

HEAD = [(50.0, "Código"), (150.0, "Descripción"), (500.0, "Cant."), (700.0, "P.U."), (850.0, "Importe")]


def test_columns_are_known_by_their_headers() -> None:
    [only] = found(table(HEAD, [(50, "AB-12"), (150, "Pan de molde"), (500, "3"), (700, "2,50"), (850, "7,50")]))
    assert (only.name, only.sku, only.price, only.currency, only.quantity) == (
        "Pan de molde", "AB-12", Decimal("2.50"), "EUR", Decimal(3),
    )  # fmt: skip
    assert only.confidence == 1.0
    assert only.evidence == "AB-12 Pan de molde 3 2,50 7,50"
    assert only.box == (0.05, 0.12, 0.874, 0.132)
    assert set(only.confidences) == {"name", "price", "currency", "sku", "quantity"}


@pytest.mark.parametrize(
    "heads",
    [
        ("SKU", "Product", "Unit price"), ("Ref.", "Artículo", "Precio"), ("Item code", "Description", "Price"),
        ("REFERENCIA", "NOMBRE", "P.V.P."), ("Cód.", "Producto", "P. Unit."), ("Clave", "Concepto", "Precio unitario"),
    ],
)  # fmt: skip
def test_headers_are_understood_in_both_languages(heads: tuple[str, str, str]) -> None:
    code, name, price = heads
    [only] = found(table([(50, code), (150, name), (700, price)], [(50, "77001"), (150, "Pan"), (700, "1250")]))
    assert (only.sku, only.name, only.price) == ("77001", "Pan", Decimal(1250))


def test_columns_go_on_over_pages() -> None:
    first = table(HEAD, [(50, "AB-12"), (150, "Pan de molde"), (500, "3"), (700, "2,50"), (850, "7,50")])
    second = page((60, [(50, "AB-13"), (150, "Vino"), (500, "2"), (700, "4,00"), (850, "8,00")]), number=2)
    again = found(first, second)[1]
    assert (again.page, again.name, again.price, again.quantity) == (2, "Vino", Decimal(4), Decimal(2))
    assert 0.9 < again.confidence < 1.0


def test_a_price_that_lost_its_comma_is_put_right_by_the_amount() -> None:
    right = [(50.0, "AB-12"), (150.0, "Pan de molde"), (500.0, "3"), (700.0, "2,50"), (850.0, "7,50")]
    wrong = [(50.0, "AB-14"), (150.0, "Servilletas"), (500.0, "20"), (700.0, "145"), (850.0, "29,00")]
    mended = found(table(HEAD, right, right, wrong))[2]
    assert (mended.price, mended.confidence) == (Decimal("1.45"), 0.9)


def test_a_price_that_does_not_make_its_amount_is_doubted() -> None:
    [only] = found(table(HEAD, [(50, "AB-12"), (150, "Pan"), (500, "3"), (700, "2,50"), (850, "9,99")]))
    assert only.confidence == 0.7


def test_a_price_far_from_its_column_is_doubted() -> None:
    rows = [[(50.0, f"AB-{place}"), (150.0, "Pan de molde"), (700.0, "2,50")] for place in range(10, 15)]
    candidates = found(table([HEAD[0], HEAD[1], HEAD[3]], *rows, [(50, "AB-20"), (150, "Vino"), (700, "450")]))
    assert [candidate.confidence for candidate in candidates] == [1.0] * 5 + [pytest.approx(0.425)]


def test_a_code_that_looks_unlike_its_column_is_doubted() -> None:
    rows = [[(50.0, f"AB-{place}"), (150.0, "Pan de molde"), (700.0, "2,50")] for place in range(10, 15)]
    candidates = found(table([HEAD[0], HEAD[1], HEAD[3]], *rows, [(50, "A8-1O"), (150, "Vino"), (700, "4,50")]))
    assert [candidate.confidences["sku"] for candidate in candidates][-2:] == [1.0, 0.6]


def test_the_least_certain_word_counts() -> None:
    rows: list[Row] = [(100, [(150, "Producto"), (700, "Precio")]), (120, [(150, "Pan de molde"), (700, "2,50")])]
    [only] = found(page(*rows, confidence=80.0))
    assert (only.confidences["name"], only.confidence) == (0.8, 0.8)


def test_a_price_that_cannot_be_read_leaves_a_candidate_without_one() -> None:
    [only] = found(table(HEAD, [(50, "AB-12"), (150, "Pan de molde"), (500, "3"), (700, "2,#0")]))
    assert (only.name, only.price, only.confidence) == ("Pan de molde", None, 0.0)
    assert "price" not in only.confidences


def test_names_go_on_in_the_next_line() -> None:
    lines = table(HEAD, [(50, "AB-12"), (150, "Taladro con dos"), (700, "149,99")], [(150, "baterías y maletín")])
    assert named(lines) == [("Taladro con dos baterías y maletín", Decimal("149.99"))]
    assert found(lines)[0].evidence.count("\n") == 1


def test_a_name_whose_last_line_has_the_price_is_one() -> None:
    lines = table(HEAD, [(50, "AB-12"), (150, "Taladro con dos")], [(150, "baterías"), (700, "149,99")])
    [only] = found(lines)
    assert (only.name, only.sku, only.price) == ("Taladro con dos baterías", "AB-12", Decimal("149.99"))


def test_headings_between_rows_are_no_products_and_no_part_of_names() -> None:
    rows: list[Row] = [
        (100, [(50, "PANADERÍA")]),
        (120, [(50, "Pan de centeno"), (400, "2,40 €")]),
        (140, [(50, "Ensaimada"), (400, "9,95 €")]),
        (160, [(50, "Pescadería")]),
        (180, [(50, "Mejillón"), (400, "4,20 €")]),
        (200, [(50, "Lomo"), (400, "16,90 €")]),
    ]
    assert [name for name, _ in named(page(*rows))] == ["Pan de centeno", "Ensaimada", "Mejillón", "Lomo"]


def test_two_columns_are_read_apart() -> None:
    rows: list[Row] = [
        (100 + 20 * place, [(50, one), (350, "1,50 €"), (520, two), (850, "2,50 €")])
        for place, (one, two) in enumerate([("Pan", "Vino tinto"), ("Sal gorda", "Queso"), ("Aceite", "Jamón")])
    ]
    assert named(page(*rows)) == [
        *((name, Decimal("1.50")) for name in ("Pan", "Sal gorda", "Aceite")),
        *((name, Decimal("2.50")) for name in ("Vino tinto", "Queso", "Jamón")),
    ]


def test_two_tables_side_by_side_have_their_own_headers() -> None:
    head = [(50.0, "Producto"), (350.0, "Precio"), (520.0, "Producto"), (850.0, "Precio")]
    rows = [
        [(50.0, f"Pan {name}"), (350.0, "1,50"), (520.0, f"Vino {name}"), (850.0, "2,50")] for name in ("rojo", "azul")
    ]
    assert [name for name, _ in named(table(head, *rows))] == ["Pan rojo", "Pan azul", "Vino rojo", "Vino azul"]


def test_prices_are_found_without_any_header() -> None:
    [only, *_] = found(
        page(*[(100.0 + 20 * place, [(50.0, "AL-001 Café molido"), (600.0, "4,90 €")]) for place in range(3)])
    )
    assert (only.name, only.sku, only.price, only.confidence) == ("Café molido", "AL-001", Decimal("4.90"), 0.9)


def test_the_amount_for_several_is_not_the_price_of_one() -> None:
    [only] = found(page((100, [(50, "Café molido"), (400, "3"), (500, "4,90 €"), (700, "14,70 €")])))
    assert (only.price, only.quantity) == (Decimal("4.90"), Decimal(3))


def test_leaders_and_signs_that_stand_apart_are_no_trouble() -> None:
    assert named(page((100, [(50, "Pan de centeno ............"), (400, "2,40 €")]))) == [
        ("Pan de centeno", Decimal("2.40"))
    ]
    lines = table([HEAD[1], HEAD[3]], [(150, "Pan de molde"), (660, "$"), (712, "2,50")])
    assert named(lines) == [("Pan de molde", Decimal("2.50"))]


@pytest.mark.parametrize(
    "row",
    [
        [(500.0, "Total"), (850.0, "120,00 €")],
        [(500.0, "Subtotal"), (850.0, "120,00 €")],
        [(500.0, "Base imponible"), (850.0, "120,00 €")],
        [(500.0, "IVA 21 %"), (850.0, "25,20 €")],
        [(500.0, "I.V.A. 16%"), (850.0, "$25.20")],
        [(500.0, "Sales tax"), (850.0, "$25.20")],
        [(500.0, "Gastos de envío"), (850.0, "4,95 €")],
        [(50.0, "Página 3 de 12")],
        [(50.0, "Tel. (011) 4567-8901")],
        [(50.0, "Fecha: 12/10/2026")],
        [(50.0, "Llame al 555-0142 para pedidos de más de 50,00 €")],
        [(50.0, "Prices without tax. Call 555-0142 for orders above $5,000.00.")],
        [(50.0, "El pago se hará en efectivo y tiene un recargo de 2,50 €.")],
        [(850.0, "120,00 €")],
    ],
)
def test_sums_taxes_and_prose_are_no_products(row: list[tuple[float, str]]) -> None:
    assert found(page((100, row))) == []
    goods = [(50.0, "AB-12"), (150.0, "Pan de molde"), (500.0, "3"), (700.0, "2,50"), (850.0, "7,50")]
    assert [name for name, _ in named(table(HEAD, goods, goods, row))] == ["Pan de molde"] * 2


def test_a_name_may_begin_as_sums_do() -> None:
    assert [name for name, _ in named(page((100, [(50, "Total Repair champú"), (500, "5,60 €")])))] == [
        "Total Repair champú"
    ]


# -- anything


NASTY = st.sampled_from(
    [
        "$",
        "€",
        "1.299,00",
        "1’250.00",
        "l2.50",
        "2",
        "x",
        "$15.00",
        "Total",
        "Código",
        "Precio",
        "Descripción",
        "EAN",
        "Cant.",
        "4006381333931",
        "AL-001",
        "|",
        "....",
        "9" * 300,
        "\u0661",
        "²",
        "½",
        "6x330ml",
        "S/.",
        "-",
        "(",
        "12/10/2026",
        "\ud7ff",
    ]
) | st.text(max_size=12)
PLACES = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1)
WORDS = st.builds(Word, NASTY, PLACES, PLACES, PLACES, PLACES, st.none() | st.floats(-10, 200) | st.just(math.nan))
GRID = st.builds(
    lambda text, across, down, sure: Word(text, across / 20, down / 30, across / 20 + 0.04, down / 30 + 0.02, sure),
    NASTY, st.integers(0, 19), st.integers(0, 9), st.none() | st.floats(0, 100),
)  # fmt: skip
PAGES = st.builds(PageWords, st.integers(1, 9), PLACES, PLACES, st.lists(WORDS | GRID, max_size=60).map(tuple))


@settings(max_examples=60, deadline=None)
@given(st.lists(PAGES, max_size=3), st.sampled_from([None, "EUR", "ARS", "XXX"]))
def test_nothing_makes_the_search_fail(pages: list[PageWords], currency: str | None) -> None:
    for candidate in find_candidates(pages, default_currency=currency):
        assert all(0 <= value <= 1 for value in (candidate.confidence, *candidate.confidences.values(), *candidate.box))
        assert 0 < len(candidate.name) <= 255
        assert len(candidate.sku or "") <= 64
        assert len(candidate.unit or "") <= 16
        assert candidate.price is None or 0 < candidate.price < 10**10
        assert candidate.quantity is None or 0 < candidate.quantity < 10**11
        assert candidate.ean is None or is_gtin(candidate.ean)


def test_candidates_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Row] = [(10 + 1.6 * place, [(50, "Pan de molde"), (700, "2,50 €")]) for place in range(300)]
    many = [page(*rows, number=number, size=1.2) for number in range(1, 5)]
    monkeypatch.setattr("tasks.ocr.candidates.MAX_CANDIDATES", 500)
    assert len(find_candidates(many, default_currency="EUR")) == 500


def test_time_grows_with_the_words_and_no_faster() -> None:
    took = []
    for count in (100, 400):
        lines: list[Row] = [(10 + 2.4 * place, [(50, "Pan de molde"), (700, "2,50 €")]) for place in range(count)]
        one = page(*lines, size=1.8)
        times = []
        for _ in range(3):
            started = time.process_time()
            found(one)
            times.append(time.process_time() - started)
        took.append(min(times))
    assert took[1] < 12 * took[0]
