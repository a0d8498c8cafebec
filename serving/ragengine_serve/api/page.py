"""The page at ``/``.  Its files are all that it loads, and it calls nothing but this server."""

import hashlib
import mimetypes
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ragengine_serve.errors import ApiError

router = APIRouter(include_in_schema=False)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The Content-Security-Policy: nothing inline, nothing from elsewhere, and no text becomes HTML."""
_INDEX = "index.html"


@router.get("/", response_class=HTMLResponse)
async def page(request: Request) -> Response:
    """The page: ask, and see where each word came from."""
    return _file(request, _INDEX, {"Content-Security-Policy": POLICY, "Referrer-Policy": "no-referrer"})


@router.get("/page/{name}")
async def part(request: Request, name: str) -> Response:
    """A script, style or picture of the page."""
    if name == _INDEX or name not in _contents():
        raise ApiError(404, "not_found", "The page has no such file.")
    return _file(request, name, {})


def _file(request: Request, name: str, headers: dict[str, str]) -> Response:
    """A file that browsers keep, and ask about before they use it again."""
    content, tag = _contents()[name]
    headers = {"Cache-Control": "no-cache", "ETag": tag, **headers}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    kind = "text/javascript" if name.endswith(".js") else mimetypes.guess_type(name)[0]
    return Response(content, headers=headers, media_type=kind)


@cache
def _contents() -> dict[str, tuple[bytes, str]]:
    """The bytes of each file and their entity tag, by name."""
    folder = files("ragengine_serve").joinpath("page")
    contents = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    return {
        name: (content, f'"{hashlib.sha256(content).hexdigest()[:32]}"') for name, content in contents.items()
    }
