"""HTML: what a browser shows as text, titles and headings; any bytes end in parts or one typed error."""

import contextlib
import io
from io import BufferedReader
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragengine.corpus import html_pages
from ragengine.corpus.passage import Passage
from ragengine.corpus.splitting import LONGEST_BLOCK, Block, Heading, Part, Text, Title
from ragengine.errors import PassagesError
from tests.corpus.files import read

PIECES = [
    *(
        f"<{end}{name}>"
        for name in ("p", "table", "tr", "td", "h1", "pre", "title", "b", "svg")
        for end in ("", "/")
    ),
    *("<script>", "</script>", "<br>", "<!--", "-->", "<", "a ", "b", "&amp;", "é", "\0"),
]


def parts(content: bytes | str) -> list[Part]:
    data = content.encode() if isinstance(content, str) else content
    return list(html_pages.read_html(BufferedReader(cast(io.RawIOBase, io.BytesIO(data)))))


def test_a_page(tmp_path: Path) -> None:
    page = """<!doctype html><html><head><meta charset="utf-8"><title>Guide &amp; more</title>
        <style>p { color: red }</style><script>if (a < b) alert("no text");</script></head>
        <body><h1>Guide &amp; more</h1><p>One <b>wo</b>rd<p>café<br>bar &lt;tag&gt;
        <h2>Setup</h2><h3>St<i>eps</i></h3><ul><li>first<li>second</ul>
        <pre>x  =  1
  y</pre><table><tr><th>a<th>b<tr><td>1<td><p>2</p> c</table><!-- no text --></body></html>"""
    assert read(tmp_path / "a.html", page) == [
        Passage("a.html#0", "Guide & more", "One word café bar <tag>"),
        Passage("a.html#1", "Guide & more: Setup: Steps", "first second\nx  =  1\n  y\na | b\n1 | 2 c"),
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", []),
        ("  \n", []),
        ("plain", [Text("plain")]),
        ("<title>only", [Title("only")]),
        ("<title> </title><h1></h1>", []),
        ("<h1>open", [Heading("open", 1)]),
        ("<p>a<div>b<span>c</span>d</div>e", [Text("a"), Text("bcd"), Text("e")]),
        ("<svg><title>no</title><text>no</text></svg>yes", [Text("yes")]),
        ("<template><p>no</template><noscript>no</noscript>yes", [Text("yes")]),
        ("a&nbsp;b&bogus; &#0;&#xD800;", None),
        # a table with headings or tables in it is there for the layout
        (
            "<table><tr><td>l<table><tr><td>x<td>y</table>r<h2>h</h2>u</table>",
            [Text("l"), Block("x | y"), Text("r"), Heading("h", 2), Text("u")],
        ),
        ("<table><caption>C</caption><tr><td>1</table>", [Block("C\n1")]),
        ("<table><tr><td>1", [Block("1")]),
        ("<pre>\n\n</pre><table></table>x", [Text("x")]),
    ],
)
def test_parts(content: str, expected: list[Part] | None) -> None:
    found = parts(content)
    assert expected is None or found == expected
    assert all(text.encode("utf-8") is not None for text in texts(found))


def texts(found: list[Part]) -> list[str]:
    return [part.text for part in found if isinstance(part, Title | Heading | Text | Block)]


@pytest.mark.parametrize(
    "content",
    [
        "<p>café".encode(),
        b"\xef\xbb\xbf<p>caf\xc3\xa9",
        "<p>café".encode("utf-16"),
        b"<meta charset='ISO-8859-1'><p>caf\xe9",
        b'<meta http-equiv="Content-Type" content="text/html; charset=windows-1252"><p>caf\xe9',
        '<meta charset="gb2312"><p>café'.encode("gb18030"),
        "<meta charset=utf-16><p>café".encode(),  # which cannot be, as that could be read
    ],
)
def test_encodings(content: bytes) -> None:
    assert parts(content) == [Text("café")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<p>caf\xe9!", r"a\.htm cannot be read: byte 0xe9 near position 6 is not utf-8, which the page"),
        (b"<p>caf\xc3", "ends within a character of utf-8"),
        (b"<meta charset=utf-7><p>+AAA-", "declares the encoding 'utf-7'; convert it to UTF-8"),
        (b"<meta charset=zlib><p>", "declares the encoding 'zlib'"),
        (b"<meta charset=nonsense><p>", "declares the encoding 'nonsense'"),
    ],
)
def test_what_cannot_be_decoded_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(PassagesError, match=message):
        read(tmp_path / "a.htm", content)


@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_tags_and_any_cuts_give_the_same_parts(tags: list[str]) -> None:
    content = "".join(tags)
    whole = parts(content)
    assert all(text.strip() for text in texts(whole))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html_pages, "_CHUNK", 3)
        assert "".join(texts(parts(content))).split() == "".join(texts(whole)).split()


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all(text.encode("utf-8") for text in texts(parts(content)))


@pytest.mark.parametrize(
    "cell", ["<tr><td>word ", "<p>word ", "word ", "<pre>word ", "<h1>word ", "<td>word "]
)
def test_memory_does_not_grow_with_the_page(cell: str) -> None:
    found = parts(("<table>" if "<t" in cell else "") + cell * (LONGEST_BLOCK // 2))
    assert sum(text.count("word") for text in texts(found)) == LONGEST_BLOCK // 2
    assert max(map(len, texts(found))) < 4 * LONGEST_BLOCK


def test_deep_nesting() -> None:
    assert parts("<div>" * 100_000 + "x") == [Text("x")]
    assert parts("<table>" * 20_000 + "x") == [Text("x")] or texts(parts("<table>" * 20_000 + "x")) == ["x"]
