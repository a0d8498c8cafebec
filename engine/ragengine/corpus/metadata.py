"""The metadata of a passage: a flat mapping of field names to texts, made of what else its record holds."""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from ragengine.errors import PassagesError
from ragengine.messages import short_repr

PASSAGE_FIELDS: Final = ("id", "title", "text")
_NESTED: Final = "metadata"


def read_metadata(
    record: Mapping[str, Any], where: str, taken: Collection[str] = PASSAGE_FIELDS
) -> dict[str, str]:
    """The fields of a record that are not ``taken`` as its id, title or text, as texts.

    An object named ``metadata`` gives its own fields, as other programs write them.  A field that is null has
    no value and is left out; every other value is kept as :func:`metadata_text` says.

    Args:
        record: field names and JSON values.
        where: begins the error message.
        taken: the names of fields that are not looked at.

    Raises:
        PassagesError: a name is there twice, is empty or no text, or a text cannot be stored.
    """
    fields = {name: value for name, value in record.items() if name not in taken}
    nested = fields.get(_NESTED)
    if isinstance(nested, Mapping):
        del fields[_NESTED]
        if twice := [name for name in nested if name in fields]:
            raise PassagesError(
                f"{where}: the field {short_repr(twice[0])} is there twice, once in {_NESTED!r}; remove one."
            )
        fields |= nested
    texts = {}
    for name, value in fields.items():
        if not isinstance(name, str) or not name:
            raise PassagesError(f"{where}: a field has the name {short_repr(name)}; give it a name.")
        check_unicode(name, "a field's name", where)
        if value is not None:
            texts[name] = _checked(metadata_text(value), name, where)
    return texts


def metadata_text(value: object) -> str | None:
    """A value as metadata holds it: a text as it is, anything else as JSON writes it (``3``, ``true``).

    None where JSON cannot write it.
    """
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return None


def check_unicode(text: str, what: str, where: str) -> None:
    """Raise :class:`PassagesError` where UTF-8 cannot hold ``text``."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as reason:
        raise PassagesError(
            f"{where}: {what} has half a surrogate pair ({text[reason.start]!a}) at character "
            f"{reason.start}, which no UTF-8 text can hold; remove it or write the whole pair."
        ) from reason


def _checked(text: str | None, name: str, where: str) -> str:
    if text is None:
        raise PassagesError(f"{where}: {short_repr(name)} cannot be written as JSON; write it as a text.")
    check_unicode(text, short_repr(name), where)
    return text
