"""Invented transactions of the same shape as the real ones: seeded, and as dirty."""

from __future__ import annotations

import csv
import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shop.demo.rows import COLUMNS

Line = tuple[str, str, str, str, str, str, str, str]

COLOURS = ("WHITE", "RED", "BLUE", "IVORY", "PINK", "GREEN", "CREAM", "VINTAGE", "RETROSPOT", "REGENCY")
STUFFS = ("METAL", "WOODEN", "GLASS", "KNITTED", "PAPER", "CERAMIC", "HANGING", "FELT", "ENAMEL", "TIN")
THINGS = ("LANTERN", "HEART", "MUG", "CAKE STAND", "BUNTING", "DOORMAT", "JIGSAW", "CANDLE", "FRAME", "LUNCH BAG")
COUNTRIES = ("Germany", "France", "EIRE", "Norway", "Spain", "Belgium", "Portugal", "Japan", "Netherlands")
CHARGES = (("DOT", "DOTCOM POSTAGE"), ("M", "Manual"), ("C2", "CARRIAGE"), ("BANK CHARGES", "Bank Charges"))


@dataclass(frozen=True, slots=True)
class Product:
    """What the invented shop sells."""

    code: str
    name: str
    pence: int


def write_csv(path: Path, *, rows: int, seed: int) -> None:
    """Write a file of that many transactions. The same seed and number give the same file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(line for line, _ in zip(invent(seed, rows), range(rows), strict=False))


def invent(seed: int, rows: int) -> Iterator[Line]:
    """Give transactions without end; the assortment is fit for about that many rows."""
    chance = random.Random(seed)  # noqa: S311  # a game, no secret
    products = _assortment(chance, max(10, rows // 6))
    invoice, time = 600_000, dt.datetime(2010, 12, 1, 8, 26, tzinfo=dt.UTC)
    while True:
        invoice += 1
        time += dt.timedelta(minutes=chance.randrange(1, 7))
        draw = chance.random()
        if draw < 0.08:
            lines = _credit_note(chance, products, f"C{invoice}", time)
        elif draw < 0.16:
            lines = _correction(chance, products, str(invoice), time)
        else:
            lines = _order(chance, products, str(invoice), time)
        yield from (_soil(chance, line) for line in lines)


def _assortment(chance: random.Random, size: int) -> list[Product]:
    codes = chance.sample(range(10_000, 100_000), size)
    return [
        Product(
            code=f"{code}{chance.choice(('', '', '', 'A', 'B'))}",
            name=f"{chance.choice(COLOURS)} {chance.choice(STUFFS)} {chance.choice(THINGS)}",
            pence=chance.randrange(19, 1500),
        )
        for code in codes
    ]


def _order(chance: random.Random, products: list[Product], invoice: str, time: dt.datetime) -> Iterator[Line]:
    customer, country = _customer(chance)
    # A few invoices are very long, most are short; a product may come twice.
    for product in chance.choices(products, k=1 + int(chance.expovariate(1 / 16))):
        quantity = chance.choice((1, 1, 2, 3, 4, 6, 6, 12, 12, 24, 48))
        yield _line(invoice, product.code, product.name, quantity, time, product.pence, customer, country)
    if country != "United Kingdom":
        yield _line(invoice, "POST", "POSTAGE", chance.randrange(1, 4), time, 1800, customer, country)
    if chance.random() < 0.08:
        code, name = chance.choice(CHARGES)
        yield _line(invoice, code, name, 1, time, chance.randrange(100, 20_000), customer, country)


def _credit_note(chance: random.Random, products: list[Product], invoice: str, time: dt.datetime) -> Iterator[Line]:
    customer, country = _customer(chance)
    # Somebody forgot the sign: no credit note, but a demand.
    sign = 1 if chance.random() < 0.05 else -1
    for product in chance.choices(products, k=chance.randrange(1, 5)):
        quantity = sign * chance.randrange(1, 13)
        yield _line(invoice, product.code, product.name, quantity, time, product.pence, customer, country)
    if chance.random() < 0.1:
        yield _line(invoice, "D", "Discount", sign, time, chance.randrange(100, 5000), customer, country)


def _correction(chance: random.Random, products: list[Product], invoice: str, time: dt.datetime) -> Iterator[Line]:
    product = chance.choice(products)
    code = "M" if chance.random() < 0.03 else product.code
    quantity = chance.choice((-1, -1, 1)) * chance.randrange(1, 60)
    # Broken goods are written off at their price; what a count finds or misses has none.
    pence = product.pence if quantity < 0 and chance.random() < 0.2 else 0
    name = chance.choice(("", "", "?", "damages", "amazon"))
    yield _line(invoice, code, name, quantity, time, pence, "", "United Kingdom")


def _soil(chance: random.Random, line: Line) -> Line:
    """Spoil one line in two hundred, and write some codes carelessly."""
    invoice, code, name, quantity, time, price, customer, country = line
    if chance.random() < 0.02:
        code = code.lower()
    if chance.random() >= 0.005:
        return invoice, code, name, quantity, time, price, customer, country
    return chance.choice(
        (
            ("", code, name, quantity, time, price, customer, country),
            (invoice, "", name, quantity, time, price, customer, country),
            (invoice, code, name, "a dozen", time, price, customer, country),
            (invoice, code, name, "0", time, price, customer, country),
            (invoice, code, name, quantity, "yesterday", price, customer, country),
            (invoice, code, name, quantity, time, "n/a", customer, country),
            (f"A{invoice}", "B", "Adjust bad debt", "1", time, "-11062.06", "", country),
        )
    )


def _customer(chance: random.Random) -> tuple[str, str]:
    customer = "" if chance.random() < 0.25 else str(chance.randrange(12_000, 18_300))
    country = "United Kingdom" if chance.random() < 0.9 else chance.choice(COUNTRIES)
    return customer, country


def _line(
    invoice: str, code: str, name: str, quantity: int, time: dt.datetime, pence: int, customer: str, country: str
) -> Line:
    price = f"{pence // 100}.{pence % 100:02}"
    return invoice, code, name, str(quantity), time.strftime("%Y-%m-%d %H:%M"), price, customer, country
