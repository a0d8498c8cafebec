"""How the page's files are served."""

import re
from importlib.resources import files

import pytest

from tests.support.served import Served, running, write_keys

FILES = sorted(file.name for file in files("ragengine_serve").joinpath("page").iterdir())


def test_the_page_may_load_its_own_files_and_nothing_else(server: Served) -> None:
    reply = server.get("/")
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(part.strip().split(" ", 1) for part in reply.headers["Content-Security-Policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    assert {
        name: value for name, value in policy.items() if value not in ("'self'", "'none'", "'script'")
    } == {}
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["trusted-types"] == "'none'"
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", reply.content)
    assert re.findall(r"<script(?! src=)(?! type=\"module\" src=)", reply.content) == []
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', reply.content)
    assert len(named) == 8
    assert all(server.get(f"/{path}").status == 200 for path in named)


@pytest.mark.parametrize("name", [name for name in FILES if name != "index.html"])
def test_a_file_has_its_type_and_is_loaded_once(server: Served, name: str) -> None:
    reply = server.get(f"/page/{name}")
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert reply.headers["Content-Type"].split(";")[0] == kinds[name.rpartition(".")[2]]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-cache"
    again = server.get(f"/page/{name}", **{"If-None-Match": reply.headers["ETag"]})
    assert (again.status, again.content) == (304, "")
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", reply.content)


@pytest.mark.parametrize(
    "path", ["index.html", "nothing.js", "..%2fapp.py", "%2e%2e/app.py", "../app.py", "", "main.js/", "%00"]
)
def test_nothing_else_is_served(server: Served, path: str) -> None:
    reply = server.get(f"/page/{path}")
    assert (reply.status, reply.content["error"]["type"]) == (404, "not_found")


def test_the_page_needs_no_key_but_its_calls_do(tmp_path_factory: pytest.TempPathFactory) -> None:
    keys = write_keys(tmp_path_factory.mktemp("keys") / "api", "a-key-for-the-clients")
    with running(api_key_file=keys) as guarded:
        assert guarded.get("/").status == guarded.get("/page/main.js").status == 200
        assert guarded.get("/info").status == guarded.post("/v1/answer", {"question": "x"}).status == 401
