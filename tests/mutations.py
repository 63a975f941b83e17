"""Almost valid: what one or two small changes make of a valid text, for the tests of parsers."""

from hypothesis import strategies as st

# What separates, ends, repeats or escapes in some format, and what only looks like a digit or a letter.
TROUBLE = [*'\0\t\n\r "\\,-.:;=[]{}/+', "0", "a", "A", "f", "\x7f", "\x85", "\xa0", "\xb2", "\xff"]


@st.composite
def changed(draw: st.DrawFn, texts: st.SearchStrategy[str], most: int = 2) -> str:
    """A text of `texts` with up to `most` characters put in, left out, doubled, or in place of another."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, len(text)))
        left, here, right = text[:at], text[at : at + 1], text[at + 1 :]
        put = draw(st.sampled_from(TROUBLE))
        text = left + draw(st.sampled_from([put + here, "", here + here, put, here.swapcase()])) + right
    return text
