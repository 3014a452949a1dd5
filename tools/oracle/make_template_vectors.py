#!/usr/bin/env python3
"""Writes tests/vectors/template: what jinja2 gives for snippets of the language, and for whole chat
templates with many requests.

    make_template_vectors.py tests/vectors/template [FOLDER_OF_PUBLISHED_TEMPLATES]

Published templates are not stored: of what they render to, length and FNV-1a hash are.
"""
import json
import pathlib
import sys

import template_oracle
from template_requests import REQUESTS
from template_snippets import VARIABLES, snippets


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def write(path, value, indent=None):
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=(",", ":"))
    path.write_text(text.replace("],[", "],\n["), encoding="utf-8")


def row(source, request):
    text, message = template_oracle.render(source, json.loads(json.dumps(request)))
    if text is None:
        return {"raises": message}
    data = text.encode("utf-8")
    return {"bytes": len(data), "fnv1a": f"{fnv1a(data):016x}"}


def main():
    out = pathlib.Path(sys.argv[1])
    rows = []
    for source in snippets():
        text, message = template_oracle.render(source, json.loads(json.dumps(VARIABLES)))
        rows.append([source, text, message])
    write(out / "snippets.json", {"now": template_oracle.NOW, "variables": VARIABLES, "rows": rows})
    write(out / "requests.json", [[name, request] for name, request in REQUESTS])

    folders = [out] + [pathlib.Path(p) for p in sys.argv[2:]]
    rendered = {}
    for folder in folders:
        for path in sorted(folder.glob("*.jinja")):
            with open(path, encoding="utf-8", newline="") as f:
                source = f.read()
            rendered[path.name] = {
                "source": f"{fnv1a(source.encode('utf-8')):016x}",
                "is_ours": folder == out,
                "rows": {name: row(source, request) for name, request in REQUESTS},
            }
    write(out / "rendered.json", {"now": template_oracle.NOW, "templates": rendered}, indent=0)
    n = sum(len(t["rows"]) for t in rendered.values())
    print(f"{len(rows)} snippets, {len(rendered)} templates, {n} renderings")


main()
