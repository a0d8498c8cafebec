"""BEIR: `queries.jsonl`, `corpus.jsonl` and the judgements `qrels/SPLIT.tsv`; there are no answers."""

from collections import defaultdict
from pathlib import Path
from typing import Final

from ragengine.errors import PassagesError
from ragengine.storage.foreign_files import utf8_lines
from ragengine_train.formats.open_qa import json_objects
from ragengine_train.formats.record import Dropped, Record, Records, required

_HEADER: Final = ["query-id", "corpus-id", "score"]


def read_beir(path: Path) -> Records:
    """The questions that `qrels/SPLIT.tsv` judges, each with the ids of its passages, the best first."""
    queries = _queries(path.parent.parent / "queries.jsonl")
    relevant: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for number, line in enumerate(utf8_lines(path, PassagesError), start=1):
        where, row = f"{path}, line {number}", line.rstrip("\r\n").split("\t")
        if row in (_HEADER, [""]):
            continue
        if len(row) != len(_HEADER) or not row[2].lstrip("-").isdigit():
            raise PassagesError(f"{where}: {line!a:.60} is not a query id, a passage id and a whole number.")
        query, passage, score = row[0], row[1], int(row[2])
        if score < 1:
            yield Dropped(where, "judged as not relevant")
        elif query not in queries:
            yield Dropped(where, "no such query in queries.jsonl")
        else:
            relevant[query].append((-score, passage))
    for query, judged in relevant.items():
        ids = dict.fromkeys(passage for _, passage in sorted(judged, key=lambda one: one[0]))
        if queries[query]:
            yield Record(f"{path}, query {query}", queries[query], None, passage_ids=tuple(ids))
        else:
            yield Dropped(f"{path}, query {query}", "no question")


def _queries(path: Path) -> dict[str, str]:
    return {
        required(entry, "_id", where): required(entry, "text", where).strip()
        for where, entry in json_objects(path)
    }
