"""Strangers' text stays text."""

import re

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nightsmith.agent.escape import code, fenced, markdown, plain

HOSTILE = (
    "<script>alert(1)</script> | [x](javascript:alert(1)) **bold** `code` https://evil.example www.evil.example a@b.c "
    "![i](x) <b>&lt; ~~no~~ # not a heading $x$ \\| \x1b[2J"
)
TEXT = st.text(max_size=80) | st.text(alphabet="`*_[]()<>!|\\~#-+=.:/&;1 \n\thw@$", max_size=40)


def visible(source: str) -> str:
    """What a Markdown reader shows: the text of everything, tables on, raw HTML on, links recognised."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(source)
    inline = [child for token in tokens if token.children for child in token.children]
    return "".join(child.content for child in inline if child.type in ("text", "text_special"))


def kinds(source: str) -> set[str]:
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(source)
    return {token.type for token in tokens} | {child.type for token in tokens for child in token.children or ()}


@given(TEXT)
def test_plain_text_is_one_line_without_control_or_direction_characters(text: str):
    shown = plain(text)
    assert shown == shown.strip()
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)
    assert plain(shown) == shown


def test_plain_text_keeps_letters_of_every_script():
    assert plain("Größe  ≥ 85 %\n模型 é") == "Größe ≥ 85 % 模型 é"


@given(TEXT)
@example(HOSTILE)
@example("1. first")
@example("- - -")
@example("=== x")
def test_a_markdown_reader_shows_exactly_the_plain_text(text: str):
    assert visible(f"> {markdown(text)}") == plain(text)
    assert kinds(f"> {markdown(text)}") <= {
        "blockquote_open", "blockquote_close", "paragraph_open", "paragraph_close", "inline", "text", "text_special",
    }  # fmt: skip


@given(TEXT)
@example(HOSTILE)
def test_text_in_a_markdown_table_never_leaves_its_cell(text: str):
    table = f"| a | b |\n|---|---|\n| {markdown(text)} | end |\n"
    html = MarkdownIt("commonmark").enable("table").render(table)
    assert html.count("<td>") == 2
    assert "<td>end</td>" in html


@given(TEXT)
def test_text_in_a_code_block_never_ends_the_block(text: str):
    shown = text.replace("\r", "")
    tokens = MarkdownIt("commonmark").parse(fenced(shown))
    assert [token.type for token in tokens] == ["fence"]


@given(TEXT.filter(lambda text: plain(text)))
def test_text_in_a_code_span_never_ends_the_span(text: str):
    assert kinds(code(text)) == {"paragraph_open", "paragraph_close", "inline", "code_inline"}


def test_addresses_are_no_links_for_readers_that_find_bare_ones():
    shown = markdown("see https://evil.example, www.evil.example or a@evil.example")
    assert not re.search(r"https?:|www\.|@", shown)
