"""What a server says of shards that its answers may lack."""

from pathlib import Path

from ragengine_serve.configuration.settings import ModelFolders
from tests.support.paths import WORLDFACTS
from tests.support.served import QUESTION, free_port, running
from tests.support.sharded import addressed, shard_folders, write_shards


def test_a_lost_shard_is_in_info_and_metrics(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", 2)
    dead = f"http://127.0.0.1:{free_port()}"
    with running(models=(), shard=shard_folders(folder)[0]) as first:
        path = addressed(folder, tmp_path / "remote", [[first.url], [dead]])
        models = (ModelFolders("worldfacts", WORLDFACTS / "bundle", path),)
        with running(models=models, remote_shards=True, allow_partial=True) as served:
            answer = served.post("/v1/answer", {"question": QUESTION, "num_beams": 1}).content
            (lost,) = answer["missing_shards"]
            assert dead in lost
            assert served.post("/v1/retrieve", {"question": QUESTION}).content["missing_shards"] == [lost]
            shards = served.get("/info").content["models"][0]["index"]["shards"]
            found = next(name for name in shards if name != lost)
            assert shards[found] == {"state": "closed", "failures": 0, "seconds": 0, "reason": ""}
            assert shards[lost]["state"] in ("open", "half_open")
            assert shards[lost]["failures"] >= 1
            assert f"{dead}: " in shards[lost]["reason"]
            labels = {name: f'{{model="worldfacts",shard="{name}"}}' for name in (found, lost)}
            assert served.metric(f"rag_shard_asked{labels[found]}") == 1
            assert "rag_shard_asked" + labels[lost] + " 0.0" in served.get("/metrics").content
            assert served.metric(f"rag_shard_missing_count_total{labels[lost]}") == 2
            assert served.metric(f"rag_shard_missing_count_total{labels[found]}") == 0
            assert served.get("/ready").status == 200
