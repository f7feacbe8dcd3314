"""The literal finder: what a goal offers as values, and that hostile text never harms it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightsmith.agent import literals

DEMO = (
    "Pre-train a small mixture-of-experts language model from scratch on the Python standard library's source code "
    "and get validation bits per byte at least 0.15 below the baseline; at most 4 trials and 9 minutes."
)


def values(goal: str, kind: str) -> list[object]:
    return [c.value for c in literals.find(goal) if c.kind == kind]


def test_the_demo_goal_offers_its_data_threshold_trials_and_time():
    assert [(c.kind, c.value, c.rule) for c in literals.find(DEMO)] == [
        ("text", "the Python standard library's source code", None),
        ("number", 0.15, None),
        ("number", -0.15, "downwards"),
        ("number", 4.0, None),
        ("duration", 540.0, None),
    ]


@pytest.mark.parametrize(
    ("goal", "value"),
    [
        ("reach 85 % accuracy", 0.85),
        ("lose at most 1 point", -0.01),
        ("improve F1 by 2 points", 0.02),
        ("perplexity 10 % lower than the baseline", 0.9),
        ("raise accuracy by 10 %", 1.1),
        ("halve the perplexity", 0.5),
        ("double the accuracy", 2),
        ("cut it by a third", 2 / 3),
        ("any improvement over the baseline", 0),
        ("MMLU must not drop", 0),
        ("two trials", 2),
        ("a dozen trials", 12),
        ("2M tokens", 2e6),
        ("500k tokens", 5e5),
        ("10,000 rows", 10_000),
        ("lr 3e-4", 3e-4),
        ("0,15 below the baseline", -0.15),
        (".15 below the baseline", 0.15),
        ("undercut the baseline by 0.12", -0.12),
        ("3.41 bits per byte", 3.41),
        ("85 out of 100 answers", 0.85),
        ("17/20 right", 0.85),
        ("four out of five", 0.8),
        ("fifty-five percent", 0.55),
        ("accuracy eighty five percent", 0.85),
        ("alpha thirty-two", 32),
        ("three hundred and ten rows", 310),
        ("lora r16", 16),
        ("rank32", 32),
        ("83,5 %", 0.835),
        ("11 of 20 comparisons", 0.55),
        ("six in ten", 0.6),
        ("right in 70 of 100 cases", 0.7),
        ("3 answers in 10 right", 0.3),
        ("19 times of 20", 0.95),
        ("split it 80/10/10", 0.8),
        ("cross entropy below 2 point 2", 2.2),
        ("em > .66 / 5 trials", 0.66),
        ("token F1 0.65 min.", 0.65),
        ("dropout zero", 0),
        ("ARC must hold", 0),
        ("keep MMLU flat", 0),
        ("chrF no lower, 3 trials", 0),
        ("keep chrF from dropping", 0),
        ("MUST NOT: TruthfulQA down", 0),
        ("MMLU may not slip", 0),
        ("the macro F1 gets any better at all", 0),
        ("w/o the answers getting any longer", 0),
        ("BLEU may fall by at most one.", -1),
        ("MMLU and IFEval may each lose up to 1 point", -0.01),
        ("MMLU losing at most 1.5 points and GSM8K at most 3 points", -0.03),
        ("+2.5 ROUGE-L points", 0.025),
        ("shorten the answers by 20 %", 0.8),
        ("EM must beat the untouched model by a quarter", 1.25),
        ("accuracy≥55", 0.55),
        ("accuracy. 80. tickets.tsv", 0.8),
        ("10.000 rows", 10_000),
        ("1.000.000 tokens", 1e6),
        ('he wants "at least ninety percent accuracy"', 0.9),
        ('{"rank": "16"}', 16),
        ('{"target": "exact match >= 0.9"}', 0.9),
        ("32/64/0.1 as rank/alpha/dropout", 64),
        ("an accuracy of four fifths", 0.8),
        ("take a random tenth", 0.1),
        ("one in ten rows, at random", 0.1),
        ("a mark of 4 out of 5", 4),
        ("squeeze 2 more points out", 0.02),
        ("drop a point and a half at worst", 0.015),
        ("ninety-two point five percent", 0.925),
        ("lr 10^-4", 1e-4),
        ("lr = 2*10^-4", 2e-4),
        ("over 80 procent", 0.8),
        ("accuracy 70->78", 0.78),
        ("above 80 in token F1", 0.8),
        ("a 30-million-parameter model", 30e6),
        ("r16 a32 lora", 32),
        ("sixteen experts, top-4.", 4),
    ],
)
def test_a_number_is_read_in_every_sense_that_its_words_allow(goal: str, value: float):
    assert any(found == pytest.approx(value) for found in values(goal, "number"))


@pytest.mark.parametrize(
    ("goal", "seconds"),
    [
        ("9 minutes", 540),
        ("half an hour", 1800),
        ("an hour and a half", 5400),
        ("1h30m", 5400),
        ("2 hours and 15 minutes", 8100),
        ("1.5 h", 5400),
        ("90 s", 90),
        ("a day", 86_400),
        ("a whole week", 604_800),
        ("1h30 max", 5400),
        ("20min/trial", 1200),
        ("hours: 4", 14_400),
        ("three and a half hours", 12_600),
        ("a day and a half", 129_600),
    ],
)
def test_durations_are_seconds(goal: str, seconds: float):
    assert values(f"spend {goal} at most", "duration")[0] == seconds


@pytest.mark.parametrize(
    ("goal", "time"),
    [
        ("until 7:00", "07:00"),
        ("by 7pm", "19:00"),
        ("before 12:30 am", "00:30"),
        ("by noon", "12:00"),
        ("by 7.", "07:00"),
        ("at 7h30", "07:30"),
    ],
)
def test_times_are_hours_and_minutes(goal: str, time: str):
    assert values(goal, "time") == [time]


@pytest.mark.parametrize(
    ("goal", "cron"),
    [
        ("every weeknight at 22:00", "0 22 * * 1-5"),
        ("each Sunday at 3:30", "30 3 * * 0"),
        ("nightly at 1am", "0 1 * * *"),
        ("every Monday and Thursday at 21:00", "0 21 * * 1,4"),
        ("on weekends at 10:00", "0 10 * * 0,6"),
        ("Mon, Wed and Fri at 20:00", "0 20 * * 1,3,5"),
        ("every 6 hours", "0 */6 * * *"),
        ("on the first of every month at 2am", "0 2 1 * *"),
        ("every night until 6:00", "0 22 * * *"),
        ("each Friday at 9 pm till Saturday 7:00", "0 21 * * 5"),
        ("Weekly, Saturday 22:00 until Sunday 8:00", "0 22 * * 6"),
        ("on Saturdays between 1 and 5 a.m.", "0 1 * * 6"),
        ("Fridays between 11 and 5 a.m.", "0 23 * * 5"),
        ("Mondays at 21:00", "0 21 * * 1"),
        ("Mondays to Fridays at 3:15", "15 3 * * 1-5"),
        ("Mon to Thu at 23:50", "50 23 * * 1-4"),
        ("Tuesdays and Thursdays at 8:00", "0 8 * * 2,4"),
        ("Saturday mornings at 9:00", "0 9 * * 6"),
        ("cron: 0 2 * * *", "0 2 * * *"),
        ('schedule = "30 22 * * 1-5"', "30 22 * * 1-5"),
        ("0 */8 * * * (cron)", "0 */8 * * *"),
    ],
)
def test_recurrences_are_cron_lines_with_sunday_as_zero(goal: str, cron: str):
    assert cron in values(goal, "cron")


@pytest.mark.parametrize(
    "text",
    [
        "./notes",
        "~/diary/*.txt",
        "s3://lake/crawl/2026/*.parquet",
        "tickets.parquet",
        "src/**/*.py",
        "Fragen&Antworten.csv",
        "reasoning-gym:chain_sum",
        "reasoning-gym word_sorting",
        "reasoning-gym:leg_counting?max_animals=3&min_animals=1",
        "Qwen/Qwen3-1.7B",
        "Qwen3-0.6B",
        "Mistral Small 4",
        "tiny-llama",
        "llama_test-v2",
        "our support model",
        "the RFC documents",
        "chain sum problems",
        "MMLU-Pro",
    ],
)
def test_paths_models_and_phrases_are_texts_verbatim(text: str):
    assert text in values(f"Fine-tune it on {text}, please.", "text")


@pytest.mark.parametrize(
    "name",
    [
        "delaybot-2b",
        "stablelm-2-1.6b",
        "EuroLLM-1.7B",
        "olmo2-7b-instruct",
        "json-bot",
        "goat-advisor",
        "arabic-ocr-fix",
        "customer-care-bot",
        "parkbot",
        "hf:clinic/letter-1b",
    ],
)
@pytest.mark.parametrize(
    "frame", ["Fine-tune {}, 5 trials.", "model={} lr=1e-4", "Which is better, {} or x?", "{}: sft"]
)
def test_a_bare_model_name_is_found_wherever_it_stands(name: str, frame: str):
    assert name in values(frame.format(name), "text")


@pytest.mark.parametrize(
    "goal",
    [
        "Fine-tune a pre-trained from-scratch model on held-out, low-quality, near-duplicate e-mails",
        "a case-insensitive, seed-averaged, two-stage macro-F1 with unit-test rewards",
    ],
)
def test_hyphenated_words_of_the_language_are_no_names(goal: str):
    assert [c.value for c in literals.find(goal) if c.unit == "model"] == []


def test_routing_over_the_best_experts_is_a_number_of_experts():
    assert [(c.value, c.unit) for c in literals.find("top-2 routing")] == [(2.0, "experts")]
    assert values("top-1 accuracy", "number") == []


@pytest.mark.parametrize(
    ("goal", "column"),
    [
        ("dedupe it by url", "url"),
        ("near-dedup by applicant", "applicant"),
        ("2000 rows stratified by region", "region"),
        ("10 % held out by author", "author"),
    ],
)
def test_the_column_that_a_data_step_goes_by_is_a_text(goal: str, column: str):
    assert column in values(goal, "text")


@pytest.mark.parametrize("name", ["Polish", "Norwegian", "finnish", "mmlu", "ifeval", "Hellaswag", "ARC-Easy", "arc"])
def test_languages_and_benchmarks_are_texts_in_any_case(name: str):
    assert name in values(f"filter, {name} only", "text")
    assert values("polish it", "text") == []


@pytest.mark.parametrize("name", ["Word error rate", "harmful-answer rate", "politeness score"])
def test_a_rate_or_score_of_its_own_is_one_text(name: str):
    assert name in values(f"{name} below 12 %", "text")


def test_capitals_throughout_are_no_acronyms():
    assert values("TRAIN A MODEL ON ./LOGS UNTIL PERPLEXITY < 3", "text") == ["./LOGS"]
    assert values("SFT ON MAILS.CSV", "text") == ["MAILS.CSV"]


def test_the_word_between_a_verb_of_training_and_its_data_can_be_a_model():
    assert values("Fine-tune zephyr on a.csv", "text") == ["zephyr", "a.csv"]
    assert values("Fine-tune it on a.csv", "text") == ["a.csv"]
    assert values("Fine-tune code-desk on a.csv", "text") == ["code-desk", "a.csv"]


def test_quoted_text_is_one_literal_even_with_numbers_in_it():
    found = literals.find("Train on 'my notes 2026/part 3' until perplexity is 12")
    assert [c.value for c in found if c.unit == "quoted"] == ["my notes 2026/part 3"]
    assert [c.value for c in found if c.kind == "number"] == [12.0]


def test_a_quoted_request_is_read_like_the_rest_and_a_quoted_name_is_one_literal():
    goal = 'a friend said "train from scratch on ./butcher until loss 1.5"; "empathy" stays at 3.5'
    assert {"./butcher", "empathy"} <= set(values(goal, "text"))
    assert {1.5, 3.5} <= set(values(goal, "number"))


def test_digits_inside_names_and_paths_are_not_numbers():
    assert values("evaluate Qwen3-0.6B on data/v2/part-007.jsonl", "number") == []


def test_parameters_of_a_generated_source_are_no_numbers_of_the_goal():
    goal = "Fine-tune ~/m on reasoning-gym:chain_sum?max_terms=2 until exact match is at least 60 %."
    assert values(goal, "number") == [0.6]
    assert values("split it 90/10", "number") == [0.9, 0.1]


def test_money_carries_its_currency():
    found = [(c.value, c.unit) for c in literals.find("spend $20 or 15 euros or £3k") if c.kind == "money"]
    assert found == [(20.0, "USD"), (15.0, "EUR"), (3000.0, "GBP")]
    assert values("80 zł or ≤ 1.500 ¥", "money") == [80.0, 1500.0]
    found = [(c.value, c.unit) for c in literals.find("CHF 80, five thousand yen, three hundred Swedish kronor")]
    assert found == [(80.0, "CHF"), (5000.0, "JPY"), (300.0, "SEK")]
    assert values("for 20 EUR 3 trials, or 20$ 3 trials", "money") == [20.0, 20.0]


@pytest.mark.parametrize("goal", ["2 of 4 GPUs", "5 in 10 minutes", "one of two models", "rank/alpha 32/64/0.1"])
def test_hardware_times_and_lists_are_no_shares(goal: str):
    assert [c.value for c in literals.find(goal) if c.unit == "share"] == []


@pytest.mark.parametrize(
    ("goal", "value"),
    [
        ("LoRA dropout 0.1", -0.1),
        ("perplexity of 2.15 or lower", -2.15),
        ("sample 60 % of it", -0.6),
        ("MMLU must not fall by more than half a point", 0),
        ("1) take the notes 2) train", 2),
    ],
)
def test_what_the_words_do_not_mean_is_not_offered(goal: str, value: float):
    assert value not in values(goal, "number")


def test_dates_are_read_with_dots():
    assert values("deadline is 27.11.2026, 18:00", "date") == ["2026-11-27"]


@pytest.mark.parametrize(
    ("goal", "text"),
    [
        ("for reward we have a command, ./check_pattern --strict, it prints", "./check_pattern --strict"),
        ("the reward is given by python grade.py --fast", "python grade.py --fast"),
        (
            "Reward: answers that name the station and stay polite. lr 1e-4",
            "answers that name the station and stay polite",
        ),
        ("English and Welsh only", "English and Welsh"),
        ("feed it the dialogues.", "the dialogues"),
        ("raised upon the Icelandic weather log reached", "the Icelandic weather log"),
        ("Bring our regex explainer to 0.6", "our regex explainer"),
        ("fine-tune C:/models/poet", "C:/models/poet"),
        ("p95 latency below 2 s", "p95 latency"),
    ],
)
def test_commands_descriptions_and_phrases_are_texts(goal: str, text: str):
    assert text in values(goal, "text")


def test_a_long_text_is_read_at_both_ends_and_spans_stay_true():
    goal = f"Train on ./start {'blah ' * 5000}; at most 7 trials"
    found = {c.value: c for c in literals.find(goal)}
    assert {"./start", 7.0} <= set(found)
    assert goal[slice(*found[7.0].span)] == "7 trials"


PIECES = st.sampled_from(
    [
        *(
            "0.15",
            "85 %",
            "1 point",
            "lose",
            "below",
            "the baseline",
            "./a/b*.txt",
            "9 minutes",
            "until",
            "7:00",
            "$20",
        ),
        *(
            "on my notes",
            "'x y'",
            "every night",
            "Qwen3-0.6B",
            "half",
            "1h30m",
            "<goal>",
            "\x00",
            "1e999",
            "-",
            "🦊",
            "…",
        ),
        *("(((", "\n", "2026-02-30", "a", "L3", "0,5", "%%%", "MMLU", "e-4", "=", "//", "every Sunday"),
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=60).map(" ".join), st.lists(PIECES).map("".join)))
def test_any_text_gives_at_most_64_literals_whose_spans_lie_in_it(goal: str):
    found = literals.find(goal)
    assert len(found) <= literals.MAX_LITERALS
    assert [c.id for c in found] == [f"L{index}" for index in range(len(found))]
    for candidate in found:
        start, end = candidate.span
        assert 0 <= start < end <= len(goal)
        if candidate.kind == "text":
            assert goal[start:end] == candidate.value
        assert "\n" not in candidate.line
        assert len(candidate.shown) <= literals.SHOWN


@pytest.mark.parametrize(
    "goal", ["1" * 100_000, "a " * 50_000, "'" * 9_000, "on " * 9_000, "/" * 9_000, "1,000" * 9_000, "-" * 9_000]
)
def test_hostile_texts_are_read_in_time(goal: str):
    assert len(literals.find(goal)) <= literals.MAX_LITERALS
