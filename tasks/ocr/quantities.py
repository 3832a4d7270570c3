"""How much of a product a row speaks of: a number and its unit, in one spelling for each unit.

A pack keeps both its numbers: "6 x 330 ml" is a quantity of 6 with the unit "330 ml". Amounts of money and names are
others' matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tasks.ocr.money import Convention, parse_number

MAX_QUANTITY: Final = Decimal(99_999_999_999)
MAX_TEXT: Final = 64
MAX_UNIT: Final = 16

_SPELLINGS: Final = {
    "kg": "kg kgs kilo kilos kilogramo kilogramos kilogram kilograms",
    "g": "g gr grs gramo gramos gram grams",
    "mg": "mg",
    "l": "l lt lts litro litros liter liters litre litres",
    "ml": "ml cc",
    "cl": "cl",
    "m": "m mt mts metro metros meter meters",
    "cm": "cm",
    "mm": "mm",
    "m2": "m2 m²",
    "oz": "oz",
    "lb": "lb lbs libra libras pound pounds",
    "ud": "u ud uds un und unds unid unidad unidades unit units ea each",
    "pza": "pza pzas pz pieza piezas pc pcs piece pieces",
    "caja": "caja cajas cja box boxes",
    "pack": "pack packs pk paquete paquetes paq",
    "bolsa": "bolsa bolsas bag bags",
    "botella": "botella botellas bottle bottles",
    "lata": "lata latas can cans",
    "docena": "docena docenas dozen dz",
    "par": "par pares pair pairs",
    "rollo": "rollo rollos roll rolls",
    "saco": "saco sacos",
    "bulto": "bulto bultos",
}
UNITS: Final = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split()}
_CONTENTS: Final = frozenset({"kg", "g", "mg", "l", "ml", "cl", "oz", "lb", "m", "cm", "mm"})

_NUMBER: Final = r"[0-9]+(?:[.,][0-9]+)*"
_PACKED: Final = r"(?:pack|caja|box|paquete|paq|bolsa|bulto|case|estuche)"
_PLAIN: Final = re.compile(rf"({_NUMBER})\s?([a-z]{{1,12}}[2²]?)?\.?")
_PACK: Final = re.compile(rf"(?:{_PACKED}\s?(?:de|of|x)?\s?)?([0-9]{{1,5}})\s?[x×]\s?({_NUMBER})\s?([a-z]{{1,12}})\.?")
_BOX_OF: Final = re.compile(rf"{_PACKED}\s?(?:de|of|x|con|c/)?\s?([0-9]{{1,5}})(?:\s?(?:u|ud|uds|und|units|pcs))?\.?")
_AT_END: Final = re.compile(rf"(?<!\S)(?:[0-9]{{1,5}}\s?[x×]\s?)?{_NUMBER}\s?[a-z]{{1,4}}\.?$")


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number, the unit if one is told, and how sure that is. One of the two is there."""

    number: Decimal | None
    unit: str | None
    certainty: float


def parse_quantity(text: str, habit: Convention) -> Quantity | None:
    """The quantity that a whole text is, or the unit alone; None if it is neither."""
    text = " ".join(text[: MAX_TEXT + 1].casefold().split())
    if not text or len(text) > MAX_TEXT:
        return None
    if (unit := UNITS.get(text.rstrip("."))) is not None:
        return Quantity(None, unit, 1.0)
    if found := _PACK.fullmatch(text):
        number, inner, unit = _decimal(found[1], habit), _decimal(found[2], habit), UNITS.get(found[3])
        if number is None or inner is None or unit not in _CONTENTS:
            return None
        return Quantity(number[0], f"{found[2]} {unit}"[:MAX_UNIT], 0.95 * inner[1])
    if found := _BOX_OF.fullmatch(text):
        return Quantity(Decimal(found[1]), "ud", 0.9) if int(found[1]) else None
    if found := _PLAIN.fullmatch(text):
        unit = UNITS.get(found[2]) if found[2] else None
        number = _decimal(found[1], habit)
        return None if number is None or (found[2] and unit is None) else Quantity(number[0], unit, number[1])
    return None


def quantity_in_name(name: str, habit: Convention) -> Quantity | None:
    """The contents that a name ends with, such as "1 kg" or "6 x 330 ml"; numbers without a unit are none."""
    found = _AT_END.search(name[-MAX_TEXT:].casefold())
    quantity = parse_quantity(found[0], habit) if found else None
    if quantity is None or quantity.number is None or quantity.unit is None:
        return None
    return quantity if quantity.unit.split()[-1] in _CONTENTS | {"ud"} else None


def _decimal(text: str, habit: Convention) -> tuple[Decimal, float] | None:
    value = parse_number(text, habit, has_spaces=False)
    if value is None or not 0 < value[0] <= MAX_QUANTITY or value[1] > 3:
        return None
    return value[0], value[2]
