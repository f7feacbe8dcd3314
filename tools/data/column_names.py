"""What the names of columns say: which words mean a prompt, which an answer; in several spellings and languages."""

import difflib
import re
import unicodedata
from functools import cache

STRONG, MEDIUM, WEAK = 3.0, 2.0, 1.0
"""A word that means the role by itself; one that often does; one that only helps."""
NEARLY = 0.8
"""Weight of a word that is like a known one: its beginning, a part of a compound, a misspelling."""
LEAST_BEGINNING, LEAST_PART, LIKENESS = 4, 5, 0.82
"""Letters of a beginning (`antw`), letters of a part (`kundenfrage`), likeness of a misspelling (`promt`)."""


def _set(line: str) -> frozenset[str]:
    return frozenset(line.split())


_PROMPTS = {
    STRONG: "prompt question query instruction request frage anfrage aufgabe anweisung pregunta consulta instruccion"
    " solicitud domanda richiesta istruzione pergunta instrucao requete demande consigne vraag opdracht verzoek pytanie"
    " fraga вопрос задача 问题 問題 質問 题目 질문",
    MEDIUM: "q input ticket complaint issue utterance task inquiry enquiry problem puzzle case"
    " eingabe beschwerde anliegen entrada problema tarea tarefa probleme 输入 指令",
}
_ANSWERS = {
    STRONG: "completion answer response reply antwort erwiderung ruckmeldung respuesta contestacion reponse risposta"
    " resposta antwoord odpowiedz svar ответ 答案 回答 答复 대답 답변",
    MEDIUM: "a ans output label target solution result category class intent sentiment topic summary translation gold"
    " expected chosen verdict ausgabe losung ergebnis erg kategorie klasse bezeichnung etikett zusammenfassung"
    " ubersetzung etiqueta salida solucion resultado categoria clase resumen traduccion sortie etiquette resultat"
    " categorie resume traduction soluzione risultato classe riassunto traduzione saida solucao resumo traducao"
    " oplossing resultaat uitkomst решение 输出 标签 出力",
    WEAK: "score rating stars grade bewertung note tgt",
}
_ASKING = "user customer client human kunde kundin cliente usuario utilisateur klant caller student"
_ANSWERING = "assistant agent bot gpt support chatbot advisor berater agente assistent soporte teacher"
_FILLERS = (
    "text source src body content message mail email document article sentence passage description review comment title"
    " subject nachricht mensaje messaggio mensagem beschreibung texte texto testo kommentar betreff"
)

_NEVER = _set(
    "id ids uuid guid key nr no num nummer numero number count len length date datum fecha time zeit "
    "uhrzeit timestamp created updated url link index idx hash split version tokens"
)
"""Columns with such a word are about the thing, not the thing: `answer_id`, `prompt_length`."""
_NEVER_LAST = _set(
    "source score rating model status author autor name type typ lang language sprache rank votes weight "
    "confidence file path row zeile start end"
)
"""The same, where the word comes last beside others: `answer_score`, `question_source`."""
SYSTEMS = frozenset({"system", "systemprompt", "systemmessage"})
CONTEXTS = _set("input context kontext contexto contexte contesto passage background eingabe hintergrund")
"""Names of a column that goes with an instruction or a question."""
DIALOGUES = _set("messages conversations conversation dialog dialogue dialogs turns chat chats")
CHOSEN = _set("chosen accepted preferred better gewahlt bevorzugt besser elegida preferida choisie 选择")
REJECTED = _set("rejected dispreferred worse abgelehnt schlechter rechazada rejetee 拒绝")
"""Words for the better and the worse of two answers."""


def fold(name: str) -> str:
    """Lower case without accents: `Réponse` is `reponse`, `Lösung` is `losung`."""
    parts = unicodedata.normalize("NFKD", name)
    return unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", parts)).lower()


def words(name: str) -> tuple[str, ...]:
    """Words of a name, folded: `userPrompt`, `user-prompt` and `USER_PROMPT` all give (user, prompt)."""
    return tuple(re.findall(r"[^\W\d_]+", fold(re.sub(r"(?<=[^\W\d_A-ZÀ-Þ])(?=[A-ZÀ-Þ])", " ", name))))


def is_aside(name: str) -> bool:
    """Whether a name says that its column is about something else: an id, a date, a length, who wrote it."""
    found = words(name)
    return any(word in _NEVER for word in found) or (len(found) > 1 and found[-1] in _NEVER_LAST)


def is_named(name: str, kinds: frozenset[str]) -> bool:
    """Whether the whole name, without its separators, is one of these; `system` may also be one word of it."""
    found = words(name)
    return "".join(found) in kinds or (kinds is SYSTEMS and "system" in found)


def says(name: str, kinds: frozenset[str]) -> bool:
    """Whether one of the words of a name is one of these."""
    return any(word in kinds for word in words(name))


def leaning(name: str) -> float:
    """How much a name means a prompt (positive) or an answer (negative); 0: neither, or both alike.

    Who speaks tells less where it stands alone (`kunde` may hold names) than beside another word (`kunde_schreibt`).
    Words such as `text` and `message` only tell where no other does.
    """
    found = words(name)
    telling = sum(_weight(word, _TELLING) for word in found)
    speaking = sum(_weight(word, _SPEAKERS) for word in found) * (1 if len(found) > 1 else 0.5)
    return telling + speaking or max((_weight(word, _FILLING) for word in found), default=0.0)


Weights = tuple[tuple[str, float], ...]


def _weights(*parts: tuple[str, float]) -> Weights:
    return tuple((fold(word), weight) for line, weight in parts for word in line.split())


_TELLING = _weights(
    *((line, weight) for weight, line in _PROMPTS.items()), *((line, -weight) for weight, line in _ANSWERS.items())
)
_SPEAKERS = _weights((_ASKING, MEDIUM), (_ANSWERING, -MEDIUM))
_FILLING = _weights((_FILLERS, WEAK))


@cache
def _weight(word: str, known: Weights) -> float:
    """The weight of a known word; less for one that is like one; 0 for others."""
    exact = dict(known)
    if word in exact:
        return exact[word]
    like = [name for name in exact if _is_like(word, name)]
    near = difflib.get_close_matches(word, exact, n=1, cutoff=LIKENESS) if len(word) >= LEAST_PART else []
    return NEARLY * max((exact[name] for name in like or near), key=abs, default=0.0)


def _is_like(word: str, name: str) -> bool:
    least = LEAST_PART if name.isascii() else 2
    return (len(word) >= LEAST_BEGINNING and name.startswith(word)) or (len(name) >= least and name in word)
