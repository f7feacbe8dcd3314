"""Goals that fine-tune an existing model on files of one's own: models by folder and name, files, stages, targets."""

import wording as w
from limits import budget
from parts import Gold, Part, R, count, data_name, merge, sentence

_STOCK = w.stock("tuning.json")
METRICS: dict[str, list[str]] = _STOCK["METRICS"]
LEADS: list[str] = _STOCK["LEADS"]


def model_name(r: R) -> str:
    """A folder, a name, or a model that people point at."""
    pick = r.random()
    if pick < 0.42:
        return r.choice(_STOCK["MODEL_PARENTS"]) + r.choice(_STOCK["MODEL_FOLDERS"])
    if pick < 0.88:
        return r.choice(_STOCK["MODEL_NAMES"])
    return r.choice(w.MODELS)


def pairs(r: R) -> str:
    """A file of pairs or conversations, or a generating source."""
    pick = r.random()
    if pick < 0.24:
        return generated(r)
    if pick < 0.32:
        return data_name(r)
    stem = r.choice(_STOCK["STEMS"]) + r.choice(("", "", "", "_v2", "-final", "_2026", ".clean", "-new", "_export"))
    stem = stem.upper() if r.random() < 0.05 else stem
    ending = r.choice((".csv", ".csv", ".jsonl", ".jsonl", ".parquet", ".json", ".tsv"))
    return f"{r.choice(('', '', '', './', 'data/', '~/', '/srv/qa/', '../'))}{stem}{ending}"


def generated(r: R) -> str:
    """A reasoning-gym task, mostly with parameters."""
    task, names = r.choice(list(_STOCK["TASKS"].items()))
    given = r.sample(names, r.choice((0, 1, 1, 1, min(2, len(names)))))
    query = "&".join(f"{name}={r.choice((1, 2, 3, 4, 5, 8, 10, 20))}" for name in given)
    return f"reasoning-gym:{task}" + (f"?{query}" if query else "")


def two(r: R) -> tuple[str, str]:
    """Two different sources."""
    first = second = pairs(r)
    while second == first:
        second = pairs(r)
    return first, second


def share(r: R, percent: float) -> tuple[str, float]:
    """A share as percent, fraction or count."""
    pick, value = r.random(), round(percent / 100, 6)
    if pick < 0.3:
        return (f"{value:g}" if r.random() < 0.85 else f"{value:g}"[1:]), value
    if pick < 0.42 and percent == int(percent):
        return r.choice((f"{percent:g} out of 100", f"{percent:g} out of a hundred", f"{percent:g}/100")), value
    if pick < 0.48 and percent % 10 == 0:
        return r.choice((f"{percent // 10:g} out of 10", f"{percent // 10:g} out of every 10")), value
    return f"{percent:g}{r.choice(('%', ' %', ' percent', '%', ' per cent'))}", value


OPERATORS: tuple[tuple[str, str], ...] = tuple(
    (op, text) for op, texts in _STOCK["OPERATORS"].items() for text in texts
)


def target(r: R, metric: str) -> Part:
    """A target on a share: absolute, against the unmodified model, any gain, or open."""
    pick, name = r.random(), r.choice(METRICS[metric])
    if pick < 0.64:
        text, value = share(r, r.choice((r.randint(5, 99), r.choice((60, 70, 80, 85, 90, 40, 50)), 62.5)))
        op = r.choices((">=", ">"), (70, 30))[0]
        clause = r.choice(_STOCK["OPERATORS"][op]).format(M=name, v=text)
        return clause, {"want": [{"m": metric, "op": op, "v": value}]}
    if pick < 0.84:
        points = r.choice((1, 2, 3, 4, 5, 8, 10, 15, 20, 30))
        unit = "point" if points == 1 else r.choice(("points", "percentage points", "pts", "points"))
        op = r.choices((">=", ">"), (75, 25))[0]
        clause = r.choice(_STOCK["GAINS"][op]).format(M=name, v=f"{points} {unit}")
        return clause, {"want": [{"m": metric, "op": op, "v": points / 100, "to": "baseline"}]}
    if pick < 0.89:
        clause = r.choice(_STOCK["TWICE"]).format(M=name)
        return clause, {"want": [{"m": metric, "op": ">=", "v": 2, "to": "baseline", "by": "ratio"}]}
    if pick < 0.95:
        clause = r.choice(_STOCK["ANY"]).format(M=name)
        return clause, {"want": [{"m": metric, "op": ">", "v": 0, "to": "baseline"}]}
    return r.choice(_STOCK["OPEN"]).format(M=name), {"want": [{"m": metric, "op": "max"}]}


def adaptation(r: R) -> Part:
    kind, text = r.choice([(kind, text) for kind, texts in _STOCK["ADAPTATIONS"].items() for text in texts])
    return text, {"adapt": kind}


def setting(r: R) -> Part:
    """One or two fixed settings."""
    golds, texts = [], []
    for _ in range(r.choice((1, 1, 1, 2))):
        name, choice = r.choice(list(_STOCK["SETTINGS"].items()))
        if any(name == gold["k"] for gold in golds):
            continue
        shown, value = r.choice(choice["values"])
        texts.append(r.choice(choice["texts"]).format(v=shown))
        golds.append({"k": name, "v": value})
    return ", ".join(texts), {"set": golds}


def test_file(r: R) -> Part:
    """Data of one's own for judging."""
    stem = r.choice(("b", "test", "holdout", "qa_test", "dev", "gold_answers", "eval_2026", "unseen", "check", "exam"))
    file = r.choice(("", "", "./", "data/")) + stem + r.choice((".csv", ".jsonl", ".parquet"))
    role = r.choice(("test", "test", "eval"))
    return r.choice(_STOCK["TESTS"][role]).format(f=file), {"data": [{"r": file, "as": role}]}


def tuning(r: R) -> Part:
    """One stage of fine-tuning."""
    metric = r.choices(("exact_match", "token_f1", "accuracy", "f1"), (60, 24, 10, 6))[0]
    model, source = model_name(r), pairs(r)
    golds: list[Gold] = [{"do": "train", "how": ["sft"]}]
    if r.random() < 0.9:
        lead = r.choice(LEADS).format(m=model, d=source)
        golds.append({"model": model})
    else:
        lead = r.choice(_STOCK["LEADS_WITHOUT_MODEL"]).format(d=source)
    golds.append({"data": [{"r": source}]})
    if r.random() < 0.35:
        text, gold = adaptation(r)
        lead, golds = f"{lead} {text}", [*golds, gold]
    clauses = [target(r, metric)]
    for chance, make in ((0.3, test_file), (0.3, setting), (0.72, budget)):
        if r.random() < chance:
            clauses.append(make(r))
    if r.random() < 0.08:
        clauses.append((r.choice(_STOCK["ASIDES"]), {}))
    if r.random() < 0.3:
        r.shuffle(clauses)
    return sentence(r, lead, [text for text, _ in clauses]), {
        "s": "ready",
        **merge([*golds, *(gold for _, gold in clauses)]),
    }


def train_and_test(r: R) -> Part:
    """Files first: "train on a.csv, test on b.csv"."""
    metric = r.choice(("exact_match", "exact_match", "token_f1"))
    model, (train, test) = model_name(r), two(r)
    clause, gold = target(r, metric)
    role = r.choice(("test", "test", "eval"))
    files = r.choice(_STOCK["FILES"][role]).format(a=train, b=test)
    lead = r.choice(
        ("{m}: {f}", "Take {m}, {f}", "Model {m}. {f}", "{f}, with {m}", "{f}; the model is {m}", "For {m}, {f}")
    )
    lead = lead.format(m=model, f=files)
    lead = r.choice(("Fine-tune ", "SFT ", "finetune ")) + lead if lead.startswith(model) else lead
    parts = [(clause, gold)] + ([budget(r)] if r.random() < 0.6 else [])
    base: Gold = {"do": "train", "how": ["sft"], "model": model}
    data = {"data": [{"r": train}, {"r": test, "as": role}]}
    return sentence(r, lead[0].upper() + lead[1:] if r.random() < 0.7 else lead, [text for text, _ in parts]), {
        "s": "ready",
        **merge([base, data, *(gold for _, gold in parts)]),
    }


def stages(r: R) -> Part:
    """Two stages in order, each with its own data."""
    metric = r.choice(("exact_match", "exact_match", "token_f1", "accuracy"))
    model, (first, second) = model_name(r), two(r)
    text_first = r.random() < 0.6
    if text_first:
        first = r.choice(_STOCK["TEXTS"])
    template = r.choice(_STOCK["STAGES"]["pretrain" if text_first else "sft"])
    how = ["pretrain" if text_first else "sft", "sft"]
    clause, gold = target(r, metric)
    parts = [(clause, gold)] + ([test_file(r)] if r.random() < 0.2 else []) + ([budget(r)] if r.random() < 0.6 else [])
    base: Gold = {"do": "train", "how": how, "model": model, "data": [{"r": first, "at": 0}, {"r": second, "at": 1}]}
    return sentence(r, template.format(m=model, a=first, b=second), [text for text, _ in parts]), {
        "s": "ready",
        **merge([base, *(gold for _, gold in parts)]),
    }


def two_files(r: R) -> list[Part]:
    """One model and two files, in two of five relations: stages, both at once, trained and tested or evaluated."""
    model, (first, second) = model_name(r), two(r)
    clauses = [target(r, r.choice(("exact_match", "exact_match", "token_f1", "accuracy")))]
    for chance, make in ((0.75, budget), (0.2, setting), (0.25, adaptation)):
        if r.random() < chance:
            clauses.append(make(r))
    found: list[Part] = []
    for relation in ("sft", r.choice(("pretrain", "scratch", "both", "both", "test", "test", "eval"))):
        lead, gold = _related(r, relation, first, second)
        if relation != "scratch":
            gold["model"] = model
        text = sentence(r, lead.format(m=model, a=first, b=second), [text for text, _ in clauses])
        found.append((text, {"s": "ready", **merge([{"do": "train"}, gold, *(gold for _, gold in clauses)])}))
    return found


def _related(r: R, relation: str, first: str, second: str) -> tuple[str, Gold]:
    """How two files are related: a template, the methods and the data."""
    if relation == "both":
        return r.choice(_STOCK["BOTH"]), {"how": ["sft"], "data": [{"r": first}, {"r": second}]}
    if relation in _STOCK["ONE"]:
        return r.choice(_STOCK["ONE"][relation]), {
            "how": ["sft"],
            "data": [{"r": first}, {"r": second, "as": relation}],
        }
    how = ["sft" if relation == "sft" else "pretrain", "sft"]
    return r.choice(_STOCK["STAGES"][relation]), {"how": how, "data": [{"r": first, "at": 0}, {"r": second, "at": 1}]}


def night(r: R) -> Part:
    """Fine-tuning every night."""
    when, cron = r.choice(_STOCK["NIGHTS"])
    hour, until = r.choice((19, 20, 21, 22, 23)), r.choice((5, 6, 7, 8))
    model, source = model_name(r), pairs(r)
    clause, gold = target(r, r.choice(("exact_match", "token_f1")))
    n = r.choice((2, 3, 4, 5, 6, 8, 10))
    parts: list[Part] = [(clause, gold)]
    if r.random() < 0.7:
        text = r.choice(
            ("at most {n} trials a night", "{n} trials per night", "max {n} trials", "no more than {n} trials")
        )
        parts.append((text.format(n=count(r, n)), {"max": {"trials": n}}))
    end = r.choice(("until {u}:00", "stop at {u}:00", "it must be done by {u}:00", "till {u}:00")).format(u=until)
    schedule = {"when": {"cron": cron.format(h=hour), "until": f"0{until}:00"}}
    start = when.format(t=r.choice((f"{hour}:00", f"{hour - 12} pm")))
    lead = r.choice(LEADS).format(m=model, d=source)
    base: Gold = {"do": "train", "how": ["sft"], "model": model, "data": [{"r": source}], **schedule}
    text = r.choice(
        (f"{start} {end}: {lead}", f"{start} {lead[0].lower()}{lead[1:]}, {end}", f"{lead} {start.lower()}, {end}")
    )
    return sentence(r, text, [text for text, _ in parts]), {"s": "ready", **merge([base, *(gold for _, gold in parts)])}


def without_target(r: R) -> Part:
    """Nothing to reach: ask."""
    model, source = model_name(r), pairs(r)
    base: Gold = {
        "s": "ask",
        "ask": ["targets"],
        "do": "train",
        "how": ["sft"],
        "model": model,
        "data": [{"r": source}],
    }
    lead = r.choice(LEADS).format(m=model, d=source)
    pick = r.random()
    if pick < 0.3:
        first, second = r.choice(_STOCK["TEXTS"]), source
        template = r.choice(_STOCK["STAGES"]["pretrain"])
        base |= {"how": ["pretrain", "sft"], "data": [{"r": first, "at": 0}, {"r": second, "at": 1}]}
        return template.format(m=model, a=first, b=second) + r.choice((".", "", "!")), base
    parts = [make(r) for chance, make in ((0.4, budget), (0.3, setting), (0.3, test_file)) if r.random() < chance]
    return sentence(r, lead, [text for text, _ in parts]), merge([base, *(gold for _, gold in parts)])


def without_data(r: R) -> Part:
    """A model and a target, no data: ask."""
    model, (clause, gold) = model_name(r), target(r, r.choice(("exact_match", "token_f1")))
    lead = r.choice(("Fine-tune {m}", "finetune {m}", "SFT {m}", "I want {m} fine-tuned", "please tune {m}"))
    parts = [(clause, gold)] + ([budget(r)] if r.random() < 0.4 else [])
    base: Gold = {"s": "ask", "ask": ["data"], "do": "train", "how": ["sft"], "model": model}
    text = sentence(r, lead.format(m=model), [text for text, _ in parts])
    return text, merge([base, *(gold for _, gold in parts)])


KINDS = ((tuning, 50), (train_and_test, 12), (stages, 16), (night, 7), (without_target, 10), (without_data, 5))


def goal(r: R) -> Part:
    """One random fine-tuning goal with its gold answer."""
    make = r.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])[0]
    return make(r)
