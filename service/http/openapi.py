"""The OpenAPI document: FastAPI's, with the schemas that the dialects' routes refer to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

SCHEMA_REF = "#/components/schemas/{model}"


def add_schemas(app: FastAPI, schemas: Sequence[type[BaseModel]], root_path: str = "") -> None:
    """Make the app's OpenAPI document contain these schemas, and the path that the service is under."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            built = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            _, definitions = models_json_schema([(schema, "serialization") for schema in schemas], ref_template=SCHEMA_REF)
            built.setdefault("components", {}).setdefault("schemas", {}).update(definitions.get("$defs", {}))
            if root_path:
                built["servers"] = [{"url": root_path}]
            app.openapi_schema = built
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
