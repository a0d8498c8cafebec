"""Where the sentences of a text end."""

import re

# An end mark with what closes after it, before white space and no small letter; an ideographic end mark; a
# line that ends.  A period after a capital letter, or after a capital and up to three more letters that are a
# common abbreviation, ends nothing.
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s+[^\sa-z])|[。！？｡]+[」』”’）]*|\n\s*(?=\S)")
_ABBREVIATION = re.compile(
    r"(?:^|[^\w])(?:[^\W\d_]|St|Ste|Mt|Ft|Dr|Mr|Mrs|Ms|Jr|Sr|Prof|Gen|Gov|Sen|Rep|Capt|No|Nos|vs|cf|ca|approx|"
    r"e\.g|i\.e|etc|Inc|Ltd|Co|Corp|Fig|Eq|vol|pp|Art|Nr|bzw|U\.S|U\.K)\.$"
)


def sentence_around(text: str, start: int, end: int) -> tuple[int, int]:
    """The whole sentences of ``text`` that hold ``text[start:end]``, without white space around them.

    Args:
        text: the text.
        start: where the part begins.
        end: where it ends, start < end.

    Returns:
        Where the sentences begin and end: begin <= start < end <= their end.
    """
    first, last = 0, len(text)
    for found in _END.finditer(text):
        if _ABBREVIATION.search(text[max(0, found.start() - 8) : found.end()]):
            continue
        if found.end() <= start:
            first = found.end()
        elif found.end() >= end:
            last = found.end()
            break
    while first < start and text[first].isspace():
        first += 1
    while last > end and text[last - 1].isspace():
        last -= 1
    return first, last
