"""Goals other than pre-training: tuning, evaluating, comparing, building data."""

import wording as w
from limits import budget
from parts import Gold, Part, R, data_name, merge, sentence
from targets import open_clause, target_clause


def guardrail(r: R) -> Part:
    bench = r.choice(w.BENCHMARKS)
    points = r.choice((1, 2, 0.5, 3, 1.5))
    unit = "point" if points == 1 else "points"
    number = "a point" if points == 1 and r.random() < 0.4 else f"{points:g} {unit}"
    text, op, value = r.choice(
        (
            (f"do not lose more than {number} on {bench}", ">=", -points / 100),
            (f"lose at most {number} on {bench}", ">=", -points / 100),
            (f"{bench} must not drop", ">=", 0),
            (f"without losing anything on {bench}", ">=", 0),
            (f"{bench} may fall by at most {number}", ">=", -points / 100),
            (f"keep {bench} within {number} of the baseline", ">=", -points / 100),
            (f"no worse on {bench}", ">=", 0),
            (f"don't hurt {bench}", ">=", 0),
        )
    )
    return text, {"keep": [{"m": "accuracy", "op": op, "v": value, "to": "baseline", "task": bench}]}


def sft(r: R) -> Part:
    metric = r.choice(
        (
            "exact_match",
            "exact_match",
            "accuracy",
            "accuracy",
            "macro_f1",
            "f1",
            "token_f1",
            "rouge_l",
            "loss",
            "perplexity",
        )
    )
    model, source = r.choice(w.MODELS), data_name(r)
    lead = r.choice(w.SFT_VERBS).format(m=model, d=source)
    golds: list[Gold] = [{"do": "train", "how": ["sft"], "model": model, "data": [{"r": source}]}]
    if r.random() < 0.25:
        kind = r.choice(("LoRA", "QLoRA", "full"))
        lead += {
            "LoRA": r.choice((" with LoRA", " (LoRA)", " using a LoRA adapter")),
            "QLoRA": " with QLoRA",
            "full": r.choice((" (full fine-tuning)", ", all weights")),
        }[kind]
        golds.append({"adapt": kind.lower()})
    parts = [target_clause(r, metric) if r.random() < 0.93 else open_clause(r, metric)]
    if r.random() < 0.7:
        parts.append(budget(r))
    if r.random() < 0.35:
        parts.append(guardrail(r))
    if r.random() < 0.15:
        file = r.choice(("heldout.jsonl", "eval.parquet", "dev.csv", "data/test_set.jsonl"))
        parts.append(
            (
                r.choice((f"evaluate on {file}", f"measured on {file}", f"the eval set is {file}")),
                {"data": [{"r": file, "as": "eval"}]},
            )
        )
    if r.random() < 0.1:
        n = r.choice((1, 2, 4, 8))
        parts.append((f"on {n} GPU{'s' if n > 1 else ''}", {"gpus": n}))
    if r.random() < 0.1:
        n = r.choice((2, 3, 5))
        parts.append(
            r.choice(
                (
                    (f"{n} epochs", {"set": [{"k": "epochs", "v": n}]}),
                    (f"LoRA rank {n * 8}", {"set": [{"k": "lora_rank", "v": n * 8}]}),
                )
            )
        )
    return sentence(r, lead, [text for text, _ in parts]), {
        "s": "ready",
        **merge([*golds, *(gold for _, gold in parts)]),
    }


def preference(r: R) -> Part:
    model, pairs, prompts = (
        r.choice(w.MODELS),
        r.choice(
            ("prefs.parquet", "./pairs.jsonl", "our preference pairs", "data/preferences.jsonl", "the human rankings")
        ),
        r.choice(("prompts.jsonl", "./tasks", "math_prompts.parquet", "the exercise prompts")),
    )
    pick = r.random()
    metric = r.choice(("win_rate", "accuracy", "exact_match", "pass_at_1", "reward"))
    if pick < 0.4:
        lead = r.choice(
            (f"Run DPO on {model} with {pairs}", f"DPO {model} on {pairs}", f"Align {model} with DPO using {pairs}")
        )
        gold: Gold = {"do": "train", "how": ["dpo"], "model": model, "data": [{"r": pairs, "as": "preference"}]}
    elif pick < 0.75:
        reward, value = r.choice(
            (
                (", reward = exact match", {"kind": "exact"}),
                (", rewarded by unit tests", {"kind": "unit_tests"}),
                (" with the reward in reward.py", {"kind": "command", "ref": "reward.py"}),
                (", valid schema.json as reward", {"kind": "schema", "ref": "schema.json"}),
            )
        )
        lead = (
            r.choice(
                (
                    f"GRPO {model} on {prompts}",
                    f"Train {model} with reinforcement learning (GRPO) on {prompts}",
                    f"Run RL on {model} with {prompts}",
                )
            )
            + reward
        )
        gold = {
            "do": "train",
            "how": ["grpo"],
            "model": model,
            "data": [{"r": prompts, "as": "prompts"}],
            "reward": value,
        }
    else:
        source = data_name(r)
        lead = r.choice(
            (
                f"SFT {model} on {source}, then DPO on {pairs}",
                f"First fine-tune {model} on {source}, then run DPO with {pairs}",
            )
        )
        gold = {
            "do": "train",
            "how": ["sft", "dpo"],
            "model": model,
            "data": [{"r": source, "at": 0}, {"r": pairs, "as": "preference", "at": 1}],
        }
    parts = [target_clause(r, metric)]
    if r.random() < 0.5:
        parts.append(budget(r))
    return sentence(r, lead, [text for text, _ in parts]), {"s": "ready", **merge([gold, *(gold for _, gold in parts)])}


def benchmark(r: R) -> Part:
    """How good a model is on something that everybody knows."""
    model, bench = r.choice(w.MODELS), r.choice(w.BENCHMARKS)
    text = r.choice(
        (
            f"How does {model} do on {bench}?",
            f"Evaluate {model} on {bench}",
            f"What does {model} get on {bench}",
            f"{bench} accuracy of {model}?",
            f"Run {bench} on {model}",
            f"benchmark {model} with {bench}, no training",
            f"how good is {model} at {bench}",
        )
    )
    return text, {
        "s": "ready",
        "do": "evaluate",
        "model": model,
        "want": [{"m": "accuracy", "op": "max", "task": bench}],
    }


def evaluate(r: R) -> Part:
    if r.random() < 0.25:
        return benchmark(r)
    model, source = r.choice(w.MODELS), data_name(r)
    metric = r.choice(("perplexity", "bits_per_byte", "accuracy", "exact_match", "f1", "loss", None, None))
    gold: Gold = {"s": "ready", "do": "evaluate", "model": model, "data": [{"r": source, "as": "eval"}]}
    lead = r.choice(
        (
            f"Evaluate {model} on {source}",
            f"How good is {model} on {source}?",
            f"Score {model} on {source}",
            f"Benchmark {model} on {source}",
            f"Only evaluate {model} on {source}, no training",
            f"measure {model} on {source}",
            f"Test {model} on {source}, do not train",
            f"Don't train anything, only evaluate {model} on {source}",
            f"Tell me how {model} does on {source}",
            f"Evaluation of {model} with {source}",
            f"check {model} against {source} without training it",
        )
    )
    if metric is None:
        return lead, gold
    name = r.choice(w.METRICS[metric])
    gold["want"] = [{"m": metric, "op": "min" if metric in w.LOWER else "max"}]
    if r.random() < 0.5:
        return r.choice(
            (
                f"What {name} does {model} get on {source}?",
                f"Tell me {name} of {model} on {source}",
                f"I just want to know {name} of {model} on {source}",
                f"Measure {name} of {model} on {source}; do not train anything",
                f"{name} of {model} on {source}? Don't train it.",
                f"how high is {name} of {model} on {source}"
                if metric not in w.LOWER
                else f"how low is {name} of {model} on {source}",
            )
        ), gold
    return f"{lead}{r.choice((', report ', ' and show ', '. Metric: ', ' and give me '))}{name}", gold


def compare(r: R) -> Part:
    first, second = r.sample(w.MODELS, 2)
    metric = r.choice(("perplexity", "accuracy", "exact_match", "bits_per_byte", "f1"))
    name, op = r.choice(w.METRICS[metric]), "min" if metric in w.LOWER else "max"
    more = "lower" if op == "min" else "higher"
    if r.random() < 0.4:
        bench = r.choice(w.BENCHMARKS)
        text = r.choice(
            (
                f"Compare {first} with {second} on {bench}",
                f"{first} vs {second} on {bench}: which is better?",
                f"Which one is better on {bench}, {first} or {second}?",
                f"Is {first} better than {second} on {bench}?",
                f"{first} against {second}: {bench}",
                f"Does {first} beat {second} on {bench}?",
            )
        )
        return text, {
            "s": "ready",
            "do": "compare",
            "model": first,
            "want": [{"m": "accuracy", "op": "max", "to": second, "task": bench}],
        }
    source = data_name(r)
    text = r.choice(
        (
            f"Compare {first} and {second} on {source} by {name}",
            f"Compare {name} of {first} against {second} on {source}",
            f"On {source}, is {first} better than {second}? Use {name}",
            f"{first} or {second}, which has the better {name.removeprefix('the ')} on {source}?",
            f"Is {first} better than {second} on {source} by {name}?",
            f"{first} vs {second} on {source}, {name}",
            f"Which of {first} and {second} has the {more} {name.removeprefix('the ')} on {source}?",
        )
    )
    return text, {
        "s": "ready",
        "do": "compare",
        "model": first,
        "data": [{"r": source, "as": "eval"}],
        "want": [{"m": metric, "op": op, "to": second}],
    }


def build(r: R) -> Part:
    source = data_name(r)
    steps = r.sample(
        (
            ("dedupe", {"do": "dedup"}),
            ("without duplicates", {"do": "dedup"}),
            ("English only", {"do": "language_filter", "by": "English"}),
            ("French only", {"do": "language_filter", "by": "French"}),
            ("strip personal data", {"do": "redact_pii"}),
            ("remove near-duplicates", {"do": "near_dedup"}),
            ("redact personal data", {"do": "redact_pii"}),
            ("remove PII", {"do": "redact_pii"}),
            ("keep only German text", {"do": "language_filter", "by": "German"}),
            ("keep only English", {"do": "language_filter", "by": "English"}),
            ("drop low-quality documents", {"do": "quality_filter"}),
            ("hold out 10 %", {"do": "split", "n": 0.1, "u": "share"}),
            ("sample 5,000 rows", {"do": "sample", "n": 5000, "u": "rows"}),
            ("decontaminate it", {"do": "decontaminate"}),
            ("split off 20%", {"do": "split", "n": 0.2, "u": "share"}),
            ("take 1000 rows", {"do": "sample", "n": 1000, "u": "rows"}),
        ),
        r.choice((1, 2, 2, 3)),
    )
    lead = r.choice(
        (
            f"Build a dataset from {source}",
            f"Prepare {source} for training",
            f"Clean up {source}",
            f"Make a training set out of {source}",
            f"Just prepare the data in {source}",
            f"Turn {source} into a dataset",
            f"No training yet: process {source}",
            f"Get {source} ready",
        )
    )
    text = sentence(r, lead, [", ".join(text for text, _ in steps)])
    return text, {"s": "ready", "do": "build_data", "data": [{"r": source}], "steps": [dict(step) for _, step in steps]}
