"""Clauses that state a budget or a setting, each with what it means."""

from parts import WORDS, Gold, Part, R, count


def duration(r: R) -> tuple[str, float]:
    pick = r.random()
    if pick < 0.5:
        n = r.choice((2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 30, 35, 40, 45, 50, 90))
        return f"{n if r.random() < 0.9 else WORDS.get(n, n)} {r.choice(('minutes', 'minutes', 'min', 'mins'))}", n * 60
    if pick < 0.6:
        return r.choice(
            (
                ("an hour", 3600),
                ("half an hour", 1800),
                ("one hour", 3600),
                ("1 hour", 3600),
                ("an hour and a half", 5400),
                ("1h30m", 5400),
                ("2h", 7200),
                ("a quarter of an hour", 900),
                ("45m", 2700),
            )
        )
    if pick < 0.85:
        n = r.choice((2, 3, 4, 5, 6, 8, 10, 12, 1.5, 2.5, 0.5))
        return f"{n:g} {r.choice(('hours', 'hours', 'h', 'hrs'))}", n * 3600
    if pick < 0.95:
        n = r.choice((90, 120, 300, 600, 540, 900, 240))
        return f"{n} {r.choice(('seconds', 's', 'sec'))}", n
    return r.choice((("a day", 86400), ("2 days", 172800), ("two days", 172800), ("1 day", 86400)))


def trials(r: R) -> Part:
    n = r.choice((1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 9, 10, 12, 15, 16, 20, 24, 30, 40))
    noun = r.choice(("trial", "trial", "trial", "attempt", "experiment", "run")) + ("" if n == 1 else "s")
    if noun == "attempts" and r.random() < 0.3:
        noun = "tries"
    lead = r.choice(
        (
            "at most ",
            "max ",
            "no more than ",
            "up to ",
            "within ",
            "in ",
            "",
            "maximum ",
            "not more than ",
            "a budget of ",
            "limit: ",
        )
    )
    return f"{lead}{count(r, n)} {noun}", {"trials": n}


def wall(r: R) -> Part:
    text, seconds = duration(r)
    return r.choice(
        (
            "at most ",
            "in ",
            "within ",
            "under ",
            "in under ",
            "max ",
            "no longer than ",
            "",
            "for up to ",
            "it may take ",
            "time limit ",
            "spend at most ",
        )
    ) + text, {"time": seconds}


def clock(r: R) -> tuple[str, str]:
    hour, minute = r.randint(0, 23), r.choice((0, 0, 0, 30, 15, 45))
    if r.random() < 0.3:
        twelve = hour % 12 or 12
        return (
            f"{twelve}{r.choice((' ', ''))}{'am' if hour < 12 else 'pm'}"
            if minute == 0
            else f"{twelve}:{minute:02d} {'am' if hour < 12 else 'pm'}"
        ), f"{hour:02d}:{minute:02d}"
    return r.choice((f"{hour}:{minute:02d}", f"{hour:02d}:{minute:02d}")), f"{hour:02d}:{minute:02d}"


def deadline(r: R) -> Part:
    text, value = clock(r)
    gold: Gold = {"until": value}
    if r.random() < 0.1:
        date = f"2026-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}"
        return f"by {date} {text}", {"until": value, "date": date}
    return r.choice(
        (
            "before {t}",
            "by {t}",
            "until {t}",
            "be done by {t}",
            "finish before {t}",
            "deadline {t}",
            "no later than {t}",
            "ready at {t}",
            "stop at {t}",
        )
    ).format(t=text), gold


def other_budget(r: R) -> Part:
    n, pick = r.choice((1, 2, 4, 8, 10, 20, 40, 64, 100)), r.random()
    if pick < 0.35:
        return r.choice(
            (
                "at most {n} GPU-hours",
                "{n} GPU hours",
                "max {n} gpu-hours",
                "within {n} GPU-h",
                "no more than {n} GPU hours",
            )
        ).format(n=n), {"gpu_hours": n}
    if pick < 0.55:
        text, value = r.choice(
            (
                ("2M tokens", 2e6),
                ("500k tokens", 5e5),
                ("10 million tokens", 1e7),
                ("1B tokens", 1e9),
                ("200,000 tokens", 2e5),
                ("3.5M tokens", 3.5e6),
            )
        )
        return r.choice(("at most ", "max ", "no more than ", "")) + text, {"tokens": value}
    if pick < 0.8:
        amount = r.choice((5, 10, 25, 50, 80, 120, 200))
        text, currency = r.choice(
            (
                (f"${amount}", "USD"),
                (f"{amount} euros", "EUR"),
                (f"€{amount}", "EUR"),
                (f"{amount} CHF", "CHF"),
                (f"{amount} dollars", "USD"),
                (f"£{amount}", "GBP"),
                (f"{amount} EUR", "EUR"),
            )
        )
        return r.choice(
            ("spend at most ", "max ", "for less than ", "it must not cost more than ", "budget ")
        ) + text, {"cost": f"{amount} {currency}"}
    text, seconds = duration(r)
    return r.choice(
        ("{t} per trial", "each trial at most {t}", "no trial longer than {t}", "{t} each", "every run max {t}")
    ).format(t=text), {"each": seconds}


def budget(r: R) -> Part:
    makers = r.choices(
        (
            (trials, wall),
            (trials,),
            (wall,),
            (deadline,),
            (other_budget,),
            (trials, deadline),
            (trials, other_budget),
            (wall, other_budget),
        ),
        (34, 18, 16, 9, 8, 6, 6, 3),
    )[0]
    parts = [make(r) for make in makers]
    if len(parts) == 2 and r.random() < 0.3:
        parts.reverse()
    joiner = r.choice((" and ", " and ", ", ", " or ", " / ", "; "))
    gold = {key: value for _, part in parts for key, value in part.items()}
    return joiner.join(text for text, _ in parts), {"max": gold}


def settings(r: R) -> Part:
    """One or two settings or shape requests."""
    options: list[Part] = [
        *(
            (f"{lead} {text}", {"set": [{"k": "learning_rate", "v": value}]})
            for lead, (text, value) in [
                (
                    r.choice(("lr", "learning rate", "with a learning rate of", "LR =", "use lr")),
                    r.choice(
                        (
                            ("3e-3", 3e-3),
                            ("1e-3", 1e-3),
                            ("0.001", 1e-3),
                            ("3e-4", 3e-4),
                            ("5e-4", 5e-4),
                            ("0.002", 2e-3),
                            ("1e-2", 1e-2),
                            ("2e-5", 2e-5),
                        )
                    ),
                )
            ]
        ),
        *(
            (text.format(n=n), {"set": [{"k": key, "v": n}]})
            for text, key, n in [
                (r.choice(("seed {n}", "use seed {n}", "random seed {n}")), "seed", r.choice((0, 3, 7, 13, 42, 123))),
                (r.choice(("{n} seeds", "with {n} seeds each", "use {n} seeds")), "seeds", r.choice((2, 3, 5, 6))),
                (
                    r.choice(("batch size {n}", "a batch of {n}", "batches of {n}", "batch_size={n}")),
                    "batch_size",
                    r.choice((4, 8, 16, 32, 64)),
                ),
                (
                    r.choice(("{n} steps", "train for {n} steps", "exactly {n} steps")),
                    "steps",
                    r.choice((200, 300, 500, 1000, 2000)),
                ),
                (
                    r.choice(("sequence length {n}", "windows of {n}", "seq_len {n}", "{n}-token windows")),
                    "seq_len",
                    r.choice((64, 128, 256, 512)),
                ),
                (r.choice(("weight decay {n}", "wd {n}")), "weight_decay", r.choice((0.01, 0.05, 0.1))),
                (r.choice(("dropout {n}", "dropout of {n}")), "dropout", r.choice((0.1, 0.05))),
                (
                    r.choice(("an aux loss of {n}", "router aux loss {n}")),
                    "router_aux_loss_coef",
                    r.choice((0.01, 0.001)),
                ),
            ]
        ),
        *(
            (text.format(s=s), {"set": [{"k": "schedule", "v": s}]})
            for text, s in [
                (
                    r.choice(("{s} schedule", "use the {s} schedule", "{s} decay")),
                    r.choice(("cosine", "wsd", "constant", "linear")),
                )
            ]
        ),
        *(
            (text.format(s=s), {"set": [{"k": "optimizer", "v": s}]})
            for text, s in [(r.choice(("with {s}", "{s} optimizer")), r.choice(("AdamW", "muon", "lion")))]
        ),
    ]
    shapes: list[Part] = [
        *(
            (text.format(p=p), {"arch": {"preset": p}})
            for text, p in [
                (
                    r.choice(
                        ("use the {p} preset", "{p} preset", "preset {p}", "size {p}", "the {p} size", "{p} config")
                    ),
                    r.choice(("nano", "micro", "mini", "micro")),
                )
            ]
        ),
        *(
            (text.format(n=count(r, n)), {"arch": {key: n}})
            for text, key, n in [
                (r.choice(("{n} layers", "with {n} layers")), "layers", r.choice((2, 3, 4, 6, 8))),
                (
                    r.choice(("{n} experts", "with {n} experts", "{n} experts per layer")),
                    "experts",
                    r.choice((4, 8, 16, 32)),
                ),
                (r.choice(("top-k {n}", "top_k {n}", "{n} active experts")), "top_k", r.choice((1, 2, 4))),
            ]
        ),
        *(
            (text, {"arch": {"total": value}})
            for text, value in [
                r.choice(
                    (
                        ("about 3M parameters", 3e6),
                        ("10M parameters", 1e7),
                        ("a 2M parameter model", 2e6),
                        ("500k params", 5e5),
                    )
                )
            ]
        ),
        *(
            (f"{experts} experts, {layers} layers", {"arch": {"experts": experts, "layers": layers}})
            for experts, layers in [(r.choice((8, 16, 32)), r.choice((2, 4, 6)))]
        ),
    ]
    text, gold = r.choice(options) if r.random() < 0.6 else r.choice(shapes)
    if "set" in gold and r.random() < 0.12:
        return r.choice(("start from {t}", "start with {t}", "initially {t}")).format(t=text), {
            "set": [{**gold["set"][0], "how": "start"}]
        }
    return text, gold
