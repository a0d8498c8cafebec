"""Which documents the encoder reads together: similar lengths, so that little padding is computed."""

import numpy as np

from ragengine.arrays import IntArray

# Rows (documents x tokens) of a batch.  Fewer leave the matrix units idle, more fall out of the cache
# (docs/notes/operators.md).
ROWS = 256


def batches_by_length(mask: IntArray, at_once: int = ROWS) -> list[tuple[IntArray, int]]:
    """Batches of documents, given their mask int64 [N, S]: (row numbers, longest length) of each.

    A batch has at most ``at_once`` rows, and at least one document.

    A row's length is the place of its last token, so nothing that is not padding is cut off.
    """
    places = np.arange(1, mask.shape[1] + 1)
    lengths = np.where(mask != 0, places, 0).max(axis=1)
    batches: list[tuple[IntArray, int]] = []
    waiting: list[int] = []
    for row in np.argsort(-lengths, kind="stable").tolist():
        if waiting and (len(waiting) + 1) * lengths[waiting[0]] > at_once:
            batches.append((np.array(waiting), int(lengths[waiting[0]])))
            waiting = []
        waiting.append(row)
    batches.append((np.array(waiting), int(lengths[waiting[0]])))
    return batches
