"""Where the servers of an index's shards are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ragengine.errors import IndexFolderError, InputError
from ragengine.indexing.shard import shards_text
from ragengine.retrieval.sharding.manifest import ShardsManifest
from ragengine.retrieval.sharding.remote.addresses import Address
from ragengine.storage.atomic import explained, replaced_file
from ragengine.storage.foreign_files import checked_path
from ragengine.storage.ownership import SHARDS


def set_shard_addresses(shards_folder: str | Path, addresses: Mapping[int, Sequence[str]]) -> ShardsManifest:
    """Write into ``shards.json`` which servers have a shard, as ``ragengine index addresses`` does.

    An engine asks them where the shard's folder is not beside ``shards.json``, and its caller allows it.

    Args:
        shards_folder: the folder with ``shards.json``.
        addresses: for the number of a shard its servers, such as ``http://host:8000``, each with all of the
            shard; none takes those away that it has.  Shards that are not named keep theirs.

    Returns:
        What ``shards.json`` says now.

    Raises:
        InputError: there is no such shard, or a text is no address.
        IndexFolderError: ``shards.json`` cannot be read or written.
    """
    folder = checked_path(shards_folder, IndexFolderError)
    manifest = ShardsManifest.read(folder)
    entries = list(manifest.shards)
    for number, texts in addresses.items():
        if not 0 <= number < len(entries):
            raise InputError(f"There is no shard {number}; {folder} has the shards 0 to {len(entries) - 1}.")
        try:
            servers = tuple(Address.of(text).text for text in texts)
        except ValueError as reason:
            raise InputError(f"{str(reason)[:1].upper()}{str(reason)[1:]}.") from reason
        if not servers and entries[number].count and entries[number].folder is None:
            raise InputError(f"Shard {number} has no folder in {folder}; give it an address.")
        entries[number] = replace(entries[number], addresses=servers)
    written = replace(manifest, shards=tuple(entries))
    try:
        with replaced_file(folder / SHARDS) as file:
            file.write(shards_text(written).encode("utf-8"))
    except OSError as reason:
        raise IndexFolderError(f"{folder / SHARDS} cannot be written: {explained(reason)}.") from reason
    return ShardsManifest.read(folder)
