"""Numbers as a person reads them."""

from __future__ import annotations

import math
from datetime import datetime

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 4, plain: float = 1e-4) -> str:
    """With this many significant digits: 12,345 · 0.0123 · 1.23·10⁻⁵; below ``plain`` with a power of ten."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if plain <= abs(value) < 1e6:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{places}f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    mantissa = (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa).replace("-", "−")
    return power if mantissa == "1" else f"{mantissa}·{power}"


def percent(share: float) -> str:
    """A share in percent: 97.2 %, 1.39 %, 0.004 %."""
    value = 100 * share
    if value in (0, 100) or not math.isfinite(value):
        return f"{number(value)} %"
    if abs(value) < 0.01:
        return f"{number(value, 2)} %"
    return f"{value:,.{2 if abs(value) < 9.995 else 1}f} %".replace("-", "−")


def seconds(value: float) -> str:
    """A duration: 4.2 s, 3 min 5 s, 2 h 3 min."""
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(amount: int, one: str, many: str | None = None) -> str:
    """1 unit, 2 units."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def when(stamp: str) -> str:
    """A record's time stamp: 25 November 2026, 16:00."""
    return datetime.fromisoformat(stamp).strftime("%-d %B %Y, %H:%M")
