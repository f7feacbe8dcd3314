"""Clauses that few goals have (avoided, steps, output, machines, replay), and goals that lack what they need."""

from collections.abc import Callable

import wording as w
from limits import budget, settings
from other_goals import guardrail
from parts import Gold, Part, R, data_name, merge, sentence
from targets import open_clause, target_clause, target_number
from tuning_goals import LEADS, METRICS, adaptation, model_name, pairs, setting, target, test_file

_STOCK = w.stock("extras.json")
SMALL_TALK: list[str] = _STOCK["SMALL_TALK"]


def avoided(r: R) -> Part:
    """One step, method or setting that the goal forbids."""
    names, leads = r.choice(((_STOCK["AVOIDED"], _STOCK["AVOID"]), (_STOCK["KEPT_NAMES"], _STOCK["KEPT"])))
    name, texts = r.choice(list(names.items()))
    return r.choice(leads).format(x=r.choice(texts)), {"avoid": [name]}


def step(r: R) -> Part:
    """A step of the pipeline before training."""
    name, texts = r.choice(list(_STOCK["STEPS"].items()))
    return r.choice(texts), {"steps": [{"do": name}]}


def amount(r: R) -> Part:
    """How many rows to use, or how much to hold out."""
    if r.random() < 0.5:
        n = r.choice((500, 1000, 2000, 5000, 10000, 25000))
        text = r.choice(("use {n:,} rows only", "only {n} rows", "sample {n:,} rows", "take {n} rows of it"))
        return text.format(n=n), {"steps": [{"do": "sample", "n": n, "u": "rows"}]}
    n = r.choice((2, 5, 8, 10, 15, 20, 25))
    text = r.choice(("hold out {n} %", "hold {n}% out", "split off {n} percent", "keep {n} % as a held-out part"))
    return text.format(n=n), {"steps": [{"do": "split", "n": n / 100, "u": "share"}]}


def output(r: R) -> Part:
    """Name, registration and export of the result."""
    pick = r.random()
    if pick < 0.6:
        name = r.choice(_STOCK["NAMES"])
        text, gold = r.choice(_STOCK["NAMED"]).format(n=name), {"name": name}
        if r.random() < 0.25:
            return f"{text} and register it", {"out": {**gold, "register": True}}
        return text, {"out": gold}
    if pick < 0.75:
        return r.choice(_STOCK["REGISTERED"]), {"out": {"register": True}}
    form = r.choice(_STOCK["EXPORTS"])
    return r.choice(_STOCK["EXPORTED"]).format(e=form), {"out": {"export": form}}


def machines(r: R) -> Part:
    """GPUs and nodes."""
    n = r.choice((1, 2, 4, 8))
    shown = {1: r.choice(("one", "1", "a single")), 2: r.choice(("two", "2"))}.get(n, str(n))
    noun = r.choice(("GPU", "GPU", "GPU", "card")) + ("" if n == 1 else "s")
    text = r.choice(("on {n} {g}", "use {n} {g}", "you have {n} {g}", "with {n} {g}")).format(n=shown, g=noun)
    if n > 1 and r.random() < 0.2:
        return f"{text} across 2 nodes", {"gpus": n, "nodes": 2}
    return text, {"gpus": n}


def replay(r: R) -> Part:
    """Data that keeps old abilities alive."""
    file = r.choice(_STOCK["REPLAY_FILES"])
    return r.choice(_STOCK["REPLAY"]).format(f=file), {"data": [{"r": file, "as": "replay"}]}


Maker = Callable[[R], Part]
EVERYWHERE: tuple[Maker, ...] = (avoided, avoided, step, amount, output, output, machines)


def _extras(r: R, own: tuple[Maker, ...], number: int) -> list[Part]:
    """Different rare clauses; no two that fill the same field but lists."""
    found: list[Part] = []
    while len(found) < number:
        text, gold = r.choice((*EVERYWHERE, *own))(r)
        if not any(key in other for key in gold for _, other in found):
            found.append((text, gold))
    return found


def _pretraining(r: R) -> tuple[str, Gold, str]:
    source, metric = data_name(r), r.choice(("bits_per_byte", "perplexity", "loss"))
    lead = (
        f"{r.choice(w.PRETRAIN_VERBS).format(o=r.choice(w.PRETRAIN_OBJECTS))} {r.choice(w.DATA_LEADS).format(d=source)}"
    )
    return lead, {"do": "train", "how": ["pretrain"], "data": [{"r": source}]}, metric


def _tuning(r: R) -> tuple[str, Gold, str]:
    model, source = model_name(r), pairs(r)
    metric = r.choice(("exact_match", "exact_match", "token_f1", "accuracy", "f1"))
    lead = r.choice(LEADS).format(m=model, d=source)
    return lead, {"do": "train", "how": ["sft"], "model": model, "data": [{"r": source}]}, metric


def _base(r: R) -> tuple[str, Gold, str, tuple[Maker, ...]]:
    if r.random() < 0.45:
        return *_pretraining(r), (settings, settings)
    return *_tuning(r), (setting, setting, guardrail, replay, test_file, adaptation)


def _clause(r: R, metric: str) -> Part:
    if r.random() < 0.1:
        return open_clause(r, metric)
    return target(r, metric) if metric in METRICS and r.random() < 0.5 else target_clause(r, metric)


def _whole(r: R, lead: str, base: Gold, clauses: list[Part], head: Gold) -> Part:
    return sentence(r, lead, [text for text, _ in clauses if text]), {
        **head,
        **merge([base, *(gold for _, gold in clauses)]),
    }


def rich(r: R) -> Part:
    """A goal with one to three rare clauses."""
    lead, base, metric, own = _base(r)
    clauses = [_clause(r, metric), *_extras(r, own, r.choice((1, 1, 2, 2, 3)))]
    if r.random() < 0.5:
        clauses.append(budget(r))
    r.shuffle(clauses)
    return _whole(r, lead, base, clauses, {"s": "ready"})


def lacking(r: R) -> list[Part]:
    """The same goal without a target, and with one: budgets and settings are no targets."""
    lead, base, metric, own = _base(r)
    clauses = [budget(r)] if r.random() < 0.85 else []
    clauses += _extras(r, own, r.choice((0, 0, 0, 1)))
    vague = [(r.choice(_STOCK["VAGUE"]), {})] if r.random() < 0.25 else []
    without = _whole(r, lead, base, [*vague, *clauses], {"s": "ask", "ask": ["targets"]})
    name = r.choice(METRICS[metric] if metric in METRICS and r.random() < 0.5 else w.METRICS[metric])
    pick = r.random()
    if pick < 0.2:
        clause: Part = r.choice(_STOCK["IMPROVE"]).format(M=name), {}
        return [without, _whole(r, lead, base, [clause, *clauses], {"s": "ask", "ask": ["value"]})]
    if pick < 0.35:
        text, _ = target_number(r, metric)
        clause = r.choice(_STOCK["NUMBER_ONLY"]).format(v=text), {}
        return [without, _whole(r, lead, base, [clause, *clauses], {"s": "ask", "ask": ["metric"]})]
    return [without, _whole(r, lead, base, [_clause(r, metric), *clauses], {"s": "ready"})]


def answered(r: R) -> Part:
    """A goal that lacked its target, and the person's answer on a line of its own."""
    lead, base, metric, _ = _base(r)
    text, gold = _whole(r, lead, base, [budget(r)] if r.random() < 0.85 else [], {"s": "ready"})
    clause, wanted = _clause(r, metric)
    if r.random() < 0.15:
        clause, wanted = "as low a loss as the budget allows", {"want": [{"m": "loss", "op": "min"}]}
    return f"{text}\n{r.choice(_STOCK['ANSWERS'])}{clause}", {**gold, **wanted}


def small_talk(r: R) -> Part:
    """No goal at all."""
    text = r.choice(SMALL_TALK)
    return text + r.choice(("", "", "", "!", " :)")), {"s": "ask", "ask": ["goal"]}
