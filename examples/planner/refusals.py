"""Goals that are blocked, each with its reason, and honest goals that use the same words."""

import wording as w
from grammar import pretrain, terse
from other_goals import sft
from parts import Gold, Part, R
from tuning_goals import tuning

_STOCK = w.stock("refusals.json")
DEMANDS: dict[str, list[str]] = _STOCK["DEMANDS"]
WHOLE: dict[str, list[str]] = _STOCK["WHOLE"]
HONEST: list[tuple[str, Gold]] = _STOCK["HONEST"]
COMPOSED: dict[str, dict[str, list[str]]] = _STOCK["COMPOSED"]


def blocked(r: R) -> Part:
    """A goal with a demand that no honest study can meet."""
    why = r.choice(list(DEMANDS))
    gold = {"s": "blocked", "why": [why]}
    if r.random() < 0.3:
        text, fields = r.choice(WHOLE[why]), {"d": r.choice(_STOCK["SOURCES"]), "m": r.choice(_STOCK["MODELS"])}
        return text.format(**fields, t=r.choice(_STOCK["TARGETS"])), gold
    text, _ = _decent(r) if r.random() < 0.4 else r.choice(contrast(r))
    demand = r.choice(DEMANDS[why])
    return _joined(r, text, demand), gold


def honest(r: R) -> Part:
    """A decent goal with a harmless remark that shares words with the forbidden demands."""
    text, gold = _decent(r)
    remark, added = r.choice(HONEST)
    clash = any(key in gold and key != "avoid" for key in added)
    if clash:
        return text, gold
    return _joined(r, text, remark), {**gold, **added}


def composed(r: R, why: str) -> str:
    """A dishonest demand as an infinitive, put together from its words."""
    slots = COMPOSED[why]
    return r.choice(slots["t"]).format(**{name: r.choice(texts) for name, texts in slots.items()})


def demanded_or_forbidden(r: R) -> list[Part]:
    """One goal twice: it demands something dishonest, and it forbids that very thing."""
    text, gold = _decent(r) if r.random() < 0.4 else r.choice(contrast(r))
    if r.random() < 0.16:
        source = gold["data"][0]["r"]
        gone, there = (r.choice(_STOCK[kind]).format(d=source) for kind in ("GONE", "THERE"))
        return [(_joined(r, text, gone), {"s": "blocked", "why": ["missing_source"]}), (_joined(r, text, there), gold)]
    why = r.choice(list(COMPOSED))
    demand = composed(r, why)
    wrong = _joined(r, text, r.choice(_STOCK["FORCED"]).format(x=demand))
    if r.random() < 0.4:
        demand = composed(r, r.choice(list(COMPOSED)))
    honest = _joined(r, text, r.choice(_STOCK["FORBIDDEN"]).format(x=demand))
    return [(wrong, {"s": "blocked", "why": [why]}), (honest, gold)]


def _decent(r: R) -> Part:
    while True:
        text, gold = r.choices((pretrain, sft, tuning, terse), (40, 15, 35, 10))[0](r)
        if gold["s"] == "ready" and len(text) < 250:
            return text, gold


def _joined(r: R, text: str, addition: str) -> str:
    whole, capital = text.rstrip(".! "), addition[0].upper() + addition[1:]
    return r.choice(
        (
            f"{whole}. {capital}.",
            f"{whole}. {capital}.",
            f"{capital}. {text}",
            f"{whole}, {addition}",
            f"{whole}; {addition}",
            f"{whole}\n{addition}",
            f"{whole} ({addition})",
        )
    )


def contrast(r: R) -> list[Part]:
    """One goal in two versions that differ in the words of comparison alone."""
    metric, low = r.choice((("bits_per_byte", True), ("perplexity", True), ("loss", True), ("exact_match", False),
                            ("token_f1", False), ("accuracy", False)))  # fmt: skip
    name = r.choice(w.METRICS[metric])
    if low:
        number = r.choice((2.2, 1.9, 2.45, 3.1)) if metric != "perplexity" else r.choice((9, 12, 18, 25))
        shown, value, pair = f"{number:g}", float(number), ("<=", "<")
    else:
        percent = r.randint(30, 98)
        shown, value, pair = r.choice((f"{percent} %", f"{percent}%", f"{percent / 100:g}")), percent / 100, (">=", ">")
    model, source = r.choice(_STOCK["MODELS"]), r.choice(_STOCK["SOURCES"])
    lead = r.choice(w.PRETRAIN_VERBS).format(o=r.choice(w.PRETRAIN_OBJECTS)) if low else f"Fine-tune {model}"
    wrap, tail = r.choice(("{t}", "until {t}", "get {t}", "we need {t}", "target: {t}")), r.choice(_STOCK["TAILS"])
    base: Gold = {"s": "ready", "do": "train", "how": ["pretrain" if low else "sft"], "data": [{"r": source}]}
    if not low:
        base["model"] = model
    found: list[Part] = []
    for op in pair:
        clause = wrap.format(t=f"{name} {r.choice(_STOCK['CONTRASTS'][op]).format(v=shown)}")
        gold = {**base, "want": [{"m": metric, "op": op, "v": value}], **tail[1]}
        found.append((f"{lead} on {source}, {clause}{tail[0]}", gold))
    return found
