"""Functions of csv_fanout.yaml: loans with an interest rate that wanders."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from statistics import quantiles


def read(table: str) -> dict[str, object]:
    """The rows by the names of their loans; ValueError where a name is missing or stands twice."""
    with open(table, newline="", encoding="utf-8-sig") as text:
        rows = list(csv.DictReader(text))
    loans = [row["loan"] for row in rows]
    if not all(loans) or len({*loans}) < len(loans):
        raise ValueError(f"{table}: each row has a loan of its own name")
    return {"loans": loans, "rows": dict(zip(loans, rows, strict=True))}


def simulate(row: dict[str, str], paths: int) -> dict[str, str | float]:
    """What a loan costs in interest: the middle, and what one path in ten exceeds. The same row gives the same result."""
    chance = random.Random(row["loan"])
    amount, rate, volatility, years = (float(row[name]) for name in ("amount", "rate", "volatility", "years"))
    costs = quantiles([interest(chance, amount, rate, volatility, int(years)) for _ in range(paths)], n=10)
    return {"loan": row["loan"], "median": round(costs[4], 2), "worst_tenth": round(costs[8], 2)}


def interest(chance: random.Random, amount: float, rate: float, volatility: float, years: int) -> float:
    """The interest paid on one path: equal parts are paid back each year, and the rate (percent) never falls below zero."""
    paid = 0.0
    for year in range(years):
        paid += amount * (1 - year / years) * rate / 100
        rate = max(0.0, rate + chance.gauss(0, volatility))
    return paid


def write(results: list[dict[str, str | float]], out: str) -> None:
    """Write the table; the old one stays until the new one is whole."""
    fresh = Path(f"{out}.new")
    fresh.parent.mkdir(parents=True, exist_ok=True)
    with fresh.open("w", newline="", encoding="utf-8") as text:
        lines = csv.DictWriter(text, ["loan", "median", "worst_tenth"])
        lines.writeheader()
        lines.writerows(results)
    fresh.replace(out)
    print(f"{len(results)} loans")
