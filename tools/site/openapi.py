"""The OpenAPI document, as the service writes it: rendered on a page, and for download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.support.asgi import InProcess

# An https issuer, so that the document has each path.
_EVERY_PATH = {
    "MACP_AUTH_ISSUER": "https://auth.example.com",
    "MACP_AUTH_OPENAPI": "on",
    "MACP_AUTH_SIGNING_ALG": "ES256",
}


def _typed(schema: Any) -> Any:
    """Return ``schema`` where a member of any type has the type ``any``: the renderer shows no other."""
    if isinstance(schema, list):
        return [_typed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    typed = {name: _typed(value) for name, value in schema.items()}
    if isinstance(members := typed.get("properties"), dict):
        kinds = {"$ref", "allOf", "anyOf", "oneOf", "type"}
        typed["properties"] = {
            name: member if kinds & member.keys() else {**member, "type": "any"}
            for name, member in members.items()
        }
    return typed


def _write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _write_document(app: Any) -> None:
    with InProcess(_EVERY_PATH) as service:
        document = service.request("GET", "/openapi.json").json
    folder = Path(app.srcdir, app.config.generated_folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "openapi.json", document)
    _write(folder / "openapi-rendered.json", _typed(document))
    app.config.html_extra_path.append(str(folder / "openapi.json"))


def setup(app: Any) -> dict[str, bool]:
    app.add_config_value("generated_folder", "", "env")
    app.connect("builder-inited", _write_document)
    return {"parallel_read_safe": True}
