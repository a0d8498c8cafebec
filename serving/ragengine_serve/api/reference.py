"""The page at /docs: FastAPI's own would load its scripts from another host."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
:root{color-scheme:light dark}
h2{border-top:1px solid #8888;padding-top:1rem;font-size:1.1rem}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}
pre{overflow:auto;padding:.7rem;border:1px solid #8888;border-radius:.3rem}
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}
"""


def reference_page(document: Mapping[str, Any]) -> str:
    """Every call of an OpenAPI document with its fields, an example for curl, and its statuses."""
    info = document["info"]
    title, about = escape(info["title"]), escape(info.get("description", ""))
    schemas = document.get("components", {}).get("schemas", {})
    calls = "".join(
        _call(path, method, call, schemas)
        for path, methods in document["paths"].items()
        for method, call in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"<h1>{title} {escape(info['version'])}</h1><p>{about}</p>"
        f'<p><a href="openapi.json">openapi.json</a></p>{calls}</body></html>'
    )


def _call(path: str, method: str, call: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    body = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    schema = _resolved(body, schemas)
    curl = "".join(f"<pre>{escape(text)}</pre>" for text in _curl(path, method, schema))
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(field))}</td>"
        f"<td>{escape(field.get('description', ''))}</td></tr>"
        for name, field in schema.get("properties", {}).items()
    )
    statuses = "".join(
        f"<tr><td>{status}</td><td>{escape(reply.get('description', ''))}</td></tr>"
        for status, reply in sorted(call["responses"].items())
    )
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(call.get('description', ''))}</p>{curl}"
        f"<table>{rows}</table><table>{statuses}</table>"
    )


def _curl(path: str, method: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """Commands with the examples of a body's schema, or of its fields."""
    if method == "get":
        yield f"curl http://127.0.0.1:8000{path}"
        return
    examples = schema.get("examples") or [
        {
            name: field["examples"][0]
            for name, field in schema.get("properties", {}).items()
            if field.get("examples")
        }
    ]
    for example in examples:
        text = json.dumps(example, ensure_ascii=False).replace("'", "'\\''")
        yield f"curl http://127.0.0.1:8000{path} -H 'Content-Type: application/json' -d '{text}'"


def _resolved(schema: Mapping[str, Any] | None, schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    if schema is None:
        return {}
    name = schema.get("$ref", "").rpartition("/")[2]
    found: Mapping[str, Any] = schemas.get(name, schema)
    return found


def _kind(field: Mapping[str, Any]) -> str:
    """The JSON types of a field."""
    if "anyOf" in field:
        return " or ".join(
            dict.fromkeys(_kind(part) for part in field["anyOf"] if part.get("type") != "null")
        )
    if "enum" in field:
        return " or ".join(json.dumps(value) for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_kind(field.get('items', {}))}"
    return str(field.get("type") or field.get("$ref", "any").rpartition("/")[2])
