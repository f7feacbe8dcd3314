"""Clauses that state a target, each with what it means."""

import wording as w
from parts import Part, R


def share(r: R, percent: float) -> tuple[str, float]:
    if r.random() < 0.25:
        return f"{percent / 100:g}", percent / 100
    return f"{percent:g}{r.choice(('%', ' %', ' percent', '%'))}", round(percent / 100, 6)


def target_number(r: R, metric: str) -> tuple[str, float]:
    if metric == "bits_per_byte":
        value = round(r.uniform(0.8, 5), r.choice((1, 1, 2, 2, 3)))
    elif metric == "loss":
        value = round(r.uniform(0.4, 4.5), r.choice((1, 2, 2)))
    elif metric == "perplexity":
        value = float(r.choice((r.randint(3, 90), round(r.uniform(2, 30), 1))))
    elif metric == "reward":
        value = round(r.uniform(0.2, 3), 1)
    else:
        return share(r, r.choice((r.randint(40, 97), round(r.uniform(50, 99), 1))))
    return f"{value:g}", float(f"{value:g}")


def absolute(r: R, metric: str) -> Part:
    op = r.choice(("<=", "<=", "<") if metric in w.LOWER else (">=", ">=", ">"))
    text, value = target_number(r, metric)
    condition = r.choice(w.ABSOLUTE[op]).format(v=text)
    return f"{{M}} {condition}", {"m": metric, "op": op, "v": value}


def gap(r: R, metric: str) -> tuple[str, float]:
    if metric in w.SHARES:
        points = r.choice((0.5, 1, 1.5, 2, 3, 4, 5, 7, 8, 10))
        unit = (
            r.choice(("point", "percentage point", "pt"))
            if points == 1
            else r.choice(("points", "points", "percentage points", "pts", "pp"))
        )
        return f"{points:g} {unit}", points / 100
    if metric == "perplexity":
        value = r.choice((0.5, 1, 1.5, 2, 3, 5, 8, 10))
    elif metric == "reward":
        value = r.choice((0.1, 0.2, 0.5, 0.3))
    else:
        value = r.choice(
            (0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3, 0.4, 0.35, 0.07, 0.18, 0.5, 0.22, 0.45, 0.6)
        )
    return f"{value:g}", value


def difference(r: R, metric: str) -> Part:
    strict = r.random() < 0.22
    text, value = gap(r, metric)
    low = metric in w.LOWER
    direction = r.choice(("below", "lower than", "under") if low else ("above", "higher than", "over"))
    text = r.choice(w.DIFFERENCE["more" if strict else "at least"]).replace("{v}", text).replace("{dir}", direction)
    op = ("<" if strict else "<=") if low else (">" if strict else ">=")
    return text, {"m": metric, "op": op, "v": -value if low else value, "to": "baseline"}


def ratio(r: R, metric: str) -> Part:
    percent = r.choice((5, 8, 10, 12, 15, 20, 25, 30, 3, 40))
    low, strict = metric in w.LOWER, r.random() < 0.2
    p = f"{percent}{r.choice(('%', ' %', ' percent'))}"
    word = r.choice(("lower", "less", "below") if low else ("higher", "more", "above"))
    than = "" if word in ("below", "above") else " than"
    lead = "more than " if strict else r.choice(("at least ", "", ""))
    text = r.choice(
        (
            f"{{M}} {lead}{p} {word}{than} the baseline",
            f"{{M}} {lead}{p} {word}{than} baseline",
            f"{{M}} {lead}{p} better than the baseline",
        )
    )
    value = round(1 - percent / 100, 6) if low else round(1 + percent / 100, 6)
    op = ("<" if strict else "<=") if low else (">" if strict else ">=")
    return text, {"m": metric, "op": op, "v": value, "to": "baseline", "by": "ratio"}


def any_gain(r: R, metric: str) -> Part:
    text = r.choice(
        (
            "{M} better than the baseline",
            "{M} that beats the baseline",
            "any improvement in {M} over the baseline",
            "{M} better by any amount",
            "{M} better than the baseline, however little",
            "any gain in {M}",
            "{M} that outperforms the baseline",
            "any real improvement of {M}",
        )
    )
    return text, {"m": metric, "op": "<" if metric in w.LOWER else ">", "v": 0, "to": "baseline"}


def target_clause(r: R, metric: str) -> Part:
    """A clause without a subject ("get perplexity below 12") with its target."""
    if r.random() < 0.2:
        return verb_clause(r, metric)
    make = r.choices((absolute, difference, ratio, any_gain), (46, 34, 12, 8))[0]
    text, target = make(r, metric)
    name = r.choice(w.METRICS[metric])
    return r.choice(w.WRAPS).format(t=text.replace("{M}", name)), {"want": [target]}


def verb_clause(r: R, metric: str) -> Part:
    """Clauses whose verb carries the comparison: lower, halve, improve, beat."""
    name, low = r.choice(w.METRICS[metric]), metric in w.LOWER
    pick = r.random()
    verb = r.choice(
        ("lower", "reduce", "cut", "improve", "bring down", "decrease")
        if low
        else ("raise", "improve", "increase", "lift", "boost")
    )
    if pick < 0.16 and low:
        return r.choice((f"halve {name}", f"cut {name} in half", f"get {name} to half of what the baseline has")), {
            "want": [{"m": metric, "op": "<=", "v": 0.5, "to": "baseline", "by": "ratio"}]
        }
    if pick < 0.16:
        return r.choice((f"double {name}", f"get twice the {name.removeprefix('the ')}")), {
            "want": [{"m": metric, "op": ">=", "v": 2, "to": "baseline", "by": "ratio"}]
        }
    strict = r.random() < 0.2
    more, op = (
        ("more than " if strict else r.choice(("", "at least ", "", "a minimum of "))),
        (("<" if strict else "<=") if low else (">" if strict else ">=")),
    )
    if pick < 0.38:
        percent = r.choice((5, 10, 15, 20, 30))
        value = round(1 + (-percent if low else percent) / 100, 6)
        return f"{verb} {name} by {more}{percent}{r.choice(('%', ' %', ' percent'))}", {
            "want": [{"m": metric, "op": op, "v": value, "to": "baseline", "by": "ratio"}]
        }
    text, value = gap(r, metric)
    if pick < 0.75:
        return f"{verb} {name} by {more}{text}", {
            "want": [{"m": metric, "op": op, "v": -value if low else value, "to": "baseline"}]
        }
    if pick < 0.9:
        return f"beat the baseline's {name.removeprefix('the ')} by {more}{text}", {
            "want": [{"m": metric, "op": op, "v": -value if low else value, "to": "baseline"}]
        }
    return r.choice(
        (
            f"beat the baseline in {name}",
            f"beat the baseline on {name}",
            f"outperform the baseline's {name.removeprefix('the ')}",
        )
    ), {"want": [{"m": metric, "op": "<" if low else ">", "v": 0, "to": "baseline"}]}


def open_clause(r: R, metric: str) -> Part:
    name, low = r.choice(w.METRICS[metric]), metric in w.LOWER
    text = r.choice(
        (
            f"get {name} as low as you can",
            f"lower {name} as far as possible",
            f"minimise {name}",
            f"minimize {name}",
            f"drive {name} down as far as it goes",
            f"the lowest {name} you can find",
            f"{name} as low as possible",
        )
        if low
        else (
            f"get {name} as high as you can",
            f"maximise {name}",
            f"maximize {name}",
            f"push {name} as far up as possible",
            f"the best {name} you can get",
            f"{name} as high as possible",
        )
    )
    return text, {"want": [{"m": metric, "op": "min" if low else "max"}]}
