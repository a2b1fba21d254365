"""Check Kubernetes manifests against the custom resource definitions of a KServe release.

    python check_manifests.py CRDS serving-runtime.yaml inference-service.yaml

CRDS is the directory `config/crd/full` of KServe's repository, at the release that your cluster runs. Each document is
held against the OpenAPI schema of its kind and version; a field that the schema does not name is an error, since the
API server would drop it without a word. Needs PyYAML and jsonschema.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Schema = dict[str, Any]


def main(words: list[str]) -> int:
    if len(words) < 2:
        sys.stderr.write("usage: check_manifests.py CRDS MANIFEST.yaml ...\n")
        return 2
    schemas = read_schemas(Path(words[0]))
    problems = [problem for name in words[1:] for problem in check_file(Path(name), schemas)]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if not problems:
        print(f"{len(words) - 1} files fit")
    return 1 if problems else 0


def read_schemas(folder: Path) -> dict[tuple[str, str], Schema]:
    """Return schemas by apiVersion and kind."""
    found: dict[tuple[str, str], Schema] = {}
    for file in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document and document.get("kind") == "CustomResourceDefinition":
                spec = document["spec"]
                for version in spec["versions"]:
                    key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                    found[key] = strict(version["schema"]["openAPIV3Schema"])
    return found


def strict(schema: Schema) -> Schema:
    """Return an OpenAPI schema as a JSON schema in which unknown fields are errors."""
    made: Schema = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes-")}
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if "properties" in schema:
        made["properties"] = {name: strict(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            made[inner] = strict(schema[inner])
    return made


def check_file(file: Path, schemas: dict[tuple[str, str], Schema]) -> Iterator[str]:
    """Yield what does not fit."""
    for document in yaml.safe_load_all(file.read_text()):
        kind = (document.get("apiVersion", ""), document.get("kind", ""))
        if kind not in schemas:
            yield f"{file}: no definition of {kind[1]} {kind[0]}"
            continue
        schema = schemas[kind]
        # The API server itself defines what is in metadata; the CRD only says that it is an object.
        schema["properties"]["metadata"] = {"type": "object"}
        for error in jsonschema.Draft7Validator(schema).iter_errors(document):
            yield f"{file}: {'.'.join(map(str, error.absolute_path)) or 'document'}: {error.message}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
