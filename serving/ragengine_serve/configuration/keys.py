"""Keys that clients show."""

import hashlib
import hmac
from pathlib import Path

from starlette.datastructures import Headers

from ragengine.messages import one_line
from ragengine.storage.foreign_files import read_plain
from ragengine_serve.errors import SettingsError

_SHORTEST = 16
_LARGEST_FILE = 1 << 20


class Keys:
    """The keys of a file, one a line; only their hashes are kept."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`SettingsError` where the file cannot be read or holds no usable key."""
        try:
            lines = [line.strip() for line in read_plain(path, _LARGEST_FILE).decode("utf-8").splitlines()]
        except (OSError, ValueError) as reason:
            raise SettingsError(f"The key file {path} cannot be read: {one_line(reason)}.") from reason
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys or any(len(key) < _SHORTEST or not key.isascii() for key in keys):
            raise SettingsError(
                f"The key file {path} must hold at least one key, each of at least {_SHORTEST} ASCII "
                "characters on its own line."
            )
        self._hashes = [_hashed(key) for key in keys]

    def allow(self, headers: Headers) -> bool:
        """Whether ``Authorization: Bearer KEY`` or ``X-API-Key: KEY`` is one of them."""
        kind, _, key = headers.get("authorization", "").partition(" ")
        shown = key.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        given = _hashed(shown)
        return any(hmac.compare_digest(given, known) for known in self._hashes)


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
