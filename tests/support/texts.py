"""Short texts for property-based tests, made of words that measures treat differently."""

from hypothesis import strategies as st

WORDS = st.lists(
    st.sampled_from(["the", "a", "Paris", "paris!", "new", "York", "1,234", "U.S.A.", "Reykjavík", "?", "_"]),
    max_size=6,
).map(" ".join)
