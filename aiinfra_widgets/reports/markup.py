"""Text of a notebook as safe HTML: markdown with MathML, sanitised fragments, terminal colours, highlighted code.

Whatever came out of a notebook is untrusted, also our own: it may show a file that somebody else wrote. Only what is on
the lists below passes. Scripts, styles, frames, forms, event handlers and anything fetched from elsewhere do not.
"""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path
from typing import Any

import nh3
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert.filters import Highlight2HTML, ansi2html
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped]

MAX_TEXT_CHARS = 200_000
_MATHML = """
math mrow mi mn mo ms mtext mspace mfrac msqrt mroot mstyle merror mpadded mphantom msub msup msubsup munder mover
munderover mmultiscripts mprescripts none mtable mtr mtd menclose
"""
_MATHML_ATTRIBUTES = """
display displaystyle scriptlevel mathvariant mathsize stretchy symmetric fence separator form largeop movablelimits
accent accentunder lspace rspace minsize maxsize linethickness notation width height depth voffset columnalign
columnspacing rowspacing columnlines rowlines frame
"""
MATHML_TAGS = frozenset(_MATHML.split())
MATHML_ATTRIBUTES = frozenset(_MATHML_ATTRIBUTES.split())
TAGS = (nh3.ALLOWED_TAGS - {"map", "area"}) | {"section", "main", "mark", "figure", "figcaption", "u"} | MATHML_TAGS
ATTRIBUTES = {
    "*": {"class", "title", "id", "dir", "lang", "align", "style"},
    "a": {"href"},
    "img": {"src", "alt", "width", "height"},
    "td": {"colspan", "rowspan", "headers"},
    "th": {"colspan", "rowspan", "headers", "scope", "abbr"},
    "col": {"span"},
    "colgroup": {"span"},
    "ol": {"start", "reversed"},
    "li": {"value"},
    "details": {"open"},
    **{tag: set(MATHML_ATTRIBUTES) for tag in MATHML_TAGS},
}
STYLES = {"text-align", "vertical-align", "width", "min-width", "max-width", "font-weight", "font-style", "white-space"}
LINK = re.compile(r"(?:https?:|mailto:)", re.IGNORECASE)
PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=\s]*", re.IGNORECASE)


def safe_html(fragment: str) -> Markup:
    """Return an HTML fragment with only tables, text, links, embedded pictures and MathML left in it."""
    return Markup(  # noqa: S704  # this is the sanitiser
        nh3.clean(
            fragment,
            tags=set(TAGS),
            attributes=ATTRIBUTES,
            attribute_filter=_attribute,
            filter_style_properties=STYLES,
            url_schemes={"http", "https", "mailto", "data"},
        )
    )


def safe_markdown(source: str, base: Path | None = None, attachments: dict[str, Any] | None = None) -> Markup:
    """Return markdown as safe HTML, formulas as MathML; pictures in the folder `base` are embedded."""
    renderer = _Renderer(
        escape=False,
        exclude_anchor_links=True,
        embed_images=base is not None,
        path=str(base or ""),
        attachments=dict(attachments or {}),
    )
    return safe_html(MarkdownWithMath(renderer=renderer).render(source))


def safe_latex(source: str) -> Markup:
    """Return a `text/latex` output as MathML, or as its source where it cannot be read."""
    body = source.strip()
    for left, right in (("$$", "$$"), (r"\[", r"\]"), (r"\(", r"\)"), ("$", "$")):
        if body.startswith(left) and body.endswith(right) and len(body) > len(left) + len(right):
            body = body[len(left) : -len(right)]
            break
    return safe_html(_mathml(body, block=True))


def safe_text(text: str) -> Markup:
    """Return terminal text, its colours kept; beyond a limit the middle is left out, and it says so."""
    if len(text) > MAX_TEXT_CHARS:
        half = MAX_TEXT_CHARS // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n... {left_out} characters left out here; the notebook has them ...\n{text[-half:]}"
    return Markup(ansi2html(text))  # type: ignore[no-untyped-call]  # noqa: S704  # it escapes first


def safe_code(source: str) -> Markup:
    """Return Python source, highlighted."""
    return safe_html(_highlighter()(source))


def code_style() -> str:
    """Return the colours of highlighted code, light and dark."""
    light = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}"


class _Renderer(IPythonRenderer):
    """Formulas become MathML at the place where the parser knows that they are formulas, not text or code."""

    def block_math(self, body: str) -> str:
        return _mathml(body, block=True)

    def inline_math(self, body: str) -> str:
        return _mathml(body, block=False)

    def latex_environment(self, name: str, body: str) -> str:
        return _mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", block=True)

    def block_mermaidjs(self, code: str) -> str:
        return f"<pre>{html.escape(code)}</pre>"


def _mathml(body: str, *, block: bool) -> str:
    try:
        formula = str(convert(body.strip(), display="block" if block else "inline"))
    except Exception:  # latex2mathml has many ways to give up; the source is then the best that can be shown
        return f"<code>{html.escape(body)}</code>"
    return f'<span class="formula">{formula}</span>' if block else formula


@cache
def _highlighter() -> Highlight2HTML:
    return Highlight2HTML(pygments_lexer="ipython3")  # type: ignore[no-untyped-call]


def _attribute(tag: str, name: str, value: str) -> str | None:
    """Let through links that a person may follow and pictures that are embedded; names stay within the page's own."""
    if name == "id":
        return "nb-" + value
    if name == "href":
        if value.startswith("#"):
            return "#nb-" + value[1:]
        return value if LINK.match(value) else None
    if name == "src":
        return value if PICTURE.fullmatch(value) else None
    return value
