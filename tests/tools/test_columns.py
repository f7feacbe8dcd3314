"""Columns of prompt and answer: proposed from names in several languages and from samples, refused where unclear."""

import random

import pytest

from nightsmith.tools.base import ToolError
from nightsmith.tools.data.columns import propose, require_columns
from nightsmith.tools.data.conversations import ChatColumns
from nightsmith.tools.data.sources import Source

SOURCE = Source(ref="pairs.csv", id="/data/pairs.csv", label="data", kind="csv")
WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "cats", "eat", "fish"]


def value(kind: str, row: int, rng: random.Random) -> object:
    """A value of a kind of column, as tables really have them."""
    match kind:
        case "id":
            return str(row + 1)
        case "code":
            return f"TCK-{1000 + 7 * row}"
        case "date":
            return f"2024-0{row % 9 + 1}-1{row % 9}"
        case "label":
            return rng.choice(["billing", "refund", "other"])
        case "number":
            return rng.randint(-99, 999)
        case "name":
            return f"{rng.choice(WORDS).title()} {rng.choice(WORDS).title()}"
        case "empty":
            return ""
        case "turns":
            return [{"from": "human", "value": f"hi {row}"}, {"from": "gpt", "value": "hello"}]
        case _:
            return " ".join(rng.choices(WORDS, k=12)) + f" {row}"


def proposed(header: str) -> tuple[ChatColumns, str]:
    """What is proposed for a header such as `q a=number`: names, each with the kind of its values."""
    parts = [part.partition("=") for part in header.split(";")]
    rng = random.Random(0)
    sample = [{name: value(kind, row, rng) for name, _, kind in parts} for row in range(40)]
    found = propose(SOURCE, sample)
    return found.columns, found.why


@pytest.mark.parametrize(
    ("header", "prompt", "completion"),
    [
        ("prompt;completion", "prompt", "completion"),
        ("kunde_frage;antw", "kunde_frage", "antw"),
        ("userPrompt;modelResponse", "userPrompt", "modelResponse"),
        ("AGENT_REPLY;USER_QUERY", "USER_QUERY", "AGENT_REPLY"),
        ("Kundenfrage;Antworttext", "Kundenfrage", "Antworttext"),
        ("Anfrage vom Kunden;Unsere Rückmeldung", "Anfrage vom Kunden", "Unsere Rückmeldung"),
        ("pregunta;respuesta", "pregunta", "respuesta"),
        ("demande;réponse", "demande", "réponse"),
        ("domanda;risposta", "domanda", "risposta"),
        ("pergunta;resposta", "pergunta", "resposta"),
        ("вопрос;ответ", "вопрос", "ответ"),
        ("问题;答案", "问题", "答案"),
        ("promt;awnser", "promt", "awnser"),
        ("instr;resp", "instr", "resp"),
        ("Q;A=number", "Q", "A"),
        ("aufg;erg=number", "aufg", "erg"),
        ("id=id;ticket_text;ticket_antwort;datum=date", "ticket_text", "ticket_antwort"),
        ("ticket_no=code;kunde_schreibt;wir_sagen;datum=date", "kunde_schreibt", "wir_sagen"),
        ("question_id=id;question;answer_id=id;answer;answer_score=number", "question", "answer"),
        ("name=name;beschwerde;loesung;status=label", "beschwerde", "loesung"),
        ("customer=name;message;reply", "message", "reply"),
        ("subject=name;body;reply", "body", "reply"),
        ("text;label=number;label_text=label", "text", "label_text"),
        ("problem;solution;answer=number", "problem", "answer"),
        ("ticket;queue=label", "ticket", "queue"),
        ("review;rating=number", "review", "rating"),
        ("expr=name;value=number", "expr", "value"),
        ("en;de", "en", "de"),
        ("nr=id;col1;col2;leer=empty", "col1", "col2"),
        ("was_der_kunde_wollte;was_wir_sagten;bearbeiter=name", "was_der_kunde_wollte", "was_wir_sagten"),
        ("Unnamed: 0=id;article;highlights", "article", "highlights"),
    ],
)
def test_prompt_and_answer_are_found_under_odd_names(header: str, prompt: str, completion: str):
    columns, why = proposed(header)
    assert (columns.prompt, columns.completion) == (prompt, completion), why
    assert f"prompt = {prompt!r} (" in why
    assert f"completion = {completion!r} (" in why


def test_the_reason_is_given_in_words():
    assert proposed("kunde_frage;antw")[1] == (
        "prompt = 'kunde_frage' (named like a question), completion = 'antw' (named like an answer)"
    )
    assert "'queue' (3 different short values: a label)" in proposed("ticket;queue=label")[1]
    assert "'de' (the second of two text columns)" in proposed("en;de")[1]


def test_an_input_goes_with_its_instruction_and_a_system_column_with_both():
    assert proposed("instruction;input;output")[0] == ChatColumns(
        prompt="instruction", context="input", completion="output"
    )
    assert proposed("input;output")[0] == ChatColumns(prompt="input", completion="output")
    assert proposed("context;question;answer")[0].context == "context"
    assert proposed("system_prompt;prompt;response")[0] == ChatColumns(
        system="system_prompt", prompt="prompt", completion="response"
    )


def test_lists_of_turns_are_found_by_what_they_are():
    assert proposed("id=id;conversations=turns;topic")[0] == ChatColumns(messages="conversations")
    assert proposed("whatever=turns;prompt;answer")[0] == ChatColumns(messages="whatever")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("text", "no column is left to be the answer beside 'text'"),
        ("id=id;datum=date", "no column is left to be the prompt and which the answer"),
        ("first;second;third", "which column is the prompt and which the answer: 'first', 'second', 'third'"),
        ("premise;hypothesis;label=label", "which column is the prompt beside 'label': 'premise', 'hypothesis'"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_candidates(header: str, said: str):
    with pytest.raises(ToolError) as caught:
        proposed(header)
    assert said in str(caught.value)
    assert "rows='text'" in str(caught.value)


def test_texts_without_columns_are_no_pairs():
    with pytest.raises(ToolError, match="is text without columns"):
        propose(Source(ref="x", id="/x", label="x", kind="text"), [])


def test_given_columns_that_are_not_there_get_near_names():
    sample = [{"frage": "a", "antwort": "b"}]
    require_columns(SOURCE, ChatColumns(prompt="frage", completion="antwort"), sample)
    with pytest.raises(ToolError, match=r"no column 'antwrt'\. Did you mean 'antwort'"):
        require_columns(SOURCE, ChatColumns(prompt="frage", completion="antwrt"), sample)


def test_hostile_names_are_shown_escaped_and_short():
    with pytest.raises(ToolError) as caught:
        propose(SOURCE, [{"\x1b[2J" + "x" * 5000: "a", "\u202e": "b", "z": "c"}] * 20)
    assert len(str(caught.value)) < 500
    assert "\x1b" not in str(caught.value)
    assert "\u202e" not in str(caught.value)
