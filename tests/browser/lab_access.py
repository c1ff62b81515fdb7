"""What everybody can use: a name for each control, a place in the order of Tab, a focus that is seen, texts that can be read."""

from __future__ import annotations

from lab_driver import Page

#: Visible controls of the labs without a name that a screen reader could say.
NAMELESS = """() => { const named = e => e.getAttribute('aria-label') || e.title || e.textContent.trim()
        || [...(e.labels || [])].map(l => l.textContent.trim()).join('')
        || (e.getAttribute('aria-labelledby') || '').split(' ').map(i => document.getElementById(i)?.textContent || '').join('').trim();
    const all = '.aiinfra-lab :is(button, input, select, textarea, summary, a[href], [role=slider], [role=button])';
    return [...document.querySelectorAll(all)]
      .filter(e => e.checkVisibility({visibilityProperty: true}) && !named(e)).map(e => e.outerHTML.slice(0, 160)) }"""
#: Visible controls that Tab does not reach although they are not locked.
UNREACHABLE = """() => [...document.querySelectorAll('.aiinfra-lab :is(button, input, select, textarea, summary, [role=slider])')]
    .filter(e => e.checkVisibility({visibilityProperty: true}) && !e.disabled && e.tabIndex < 0 && e.closest('[disabled]') === null)
    .map(e => e.outerHTML.slice(0, 160))"""
#: Whether the focused element looks different from an element without focus: an outline, a shadow or a border.
FOCUS = """() => { const e = document.activeElement, look = () => { const s = getComputedStyle(e);
        return [s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0 ? s.outline : '', s.boxShadow, s.borderColor].join('|') };
    const lab = e.closest('.aiinfra-lab');
    if (!lab) return null;
    const now = look(); e.blur(); const then = look(); e.focus({focusVisible: true});
    return {what: e.getAttribute('aria-label') || e.textContent.trim().slice(0, 40) || e.tagName, seen: now !== then} }"""
#: Texts of the labs whose contrast with what is behind them is below WCAG's 4.5, or 3 where they are large; locked controls excepted.
FAINT = """() => { const parse = c => { const m = c.match(/[\\d.]+/g)?.map(Number) || [0, 0, 0, 0];
        const n = c.startsWith('color(srgb') ? [m[0] * 255, m[1] * 255, m[2] * 255, m[3] ?? 1] : [m[0], m[1], m[2], m[3] ?? 1]; return n };
    const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
    const lum = c => [0.2126, 0.7152, 0.0722].reduce((s, w, i) => { const v = c[i] / 255;
        return s + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4) }, 0);
    const behind = e => { const stack = []; for (let x = e; x; x = x.parentElement) stack.push(parse(getComputedStyle(x).backgroundColor));
        return stack.reverse().reduce((under, c) => over(c, under), [255, 255, 255, 1]) };
    const found = [];
    for (const e of document.querySelectorAll('.aiinfra-lab *')) {
        const own = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
        const there = e.checkVisibility({visibilityProperty: true, opacityProperty: true});
        if (!own || !there || e.closest(':disabled, [disabled]') || e.tagName === 'OPTION') continue;
        const s = getComputedStyle(e), paper = behind(e), ink = over(parse(s.color), paper), large = parseFloat(s.fontSize) >= 18.66;
        const [a, b] = [lum(ink), lum(paper)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
        if (ratio < (large ? 3 : 4.5)) found.push(`${own.slice(0, 40)}: ${ratio.toFixed(2)}`);
    }
    return [...new Set(found)] }"""


def complaints(page: Page) -> dict[str, list[str]]:
    """Return what an unaided, a keyboard or a screen reader's user would stumble over; empty where there is nothing."""
    checks = {"without a name": NAMELESS, "out of reach of Tab": UNREACHABLE, "too faint": FAINT}
    found = {what: page.page.evaluate(check) for what, check in checks.items()}
    return {what: list(which) for what, which in found.items() if which}


def tabbed(page: Page, most: int = 80) -> list[dict[str, object]]:
    """Press Tab from the first control of the first lab on, and return what got the focus inside it, and whether that was seen."""
    page.page.evaluate("() => document.querySelector('.aiinfra-lab :is(input, select, button, [role=slider])').focus()")
    found = []
    for _ in range(most):
        now = page.page.evaluate(FOCUS)
        if now is None:
            break
        found.append(now)
        page.page.keyboard.press("Tab")
    return found
