"""The reference of the configuration names every key. `REPLICATOR_WRITE_DOCS=1` writes its table anew."""

from __future__ import annotations

import os
from pathlib import Path

from replicator.config.loader import check_settings
from replicator.config.schema import KeyDescription, describe_keys

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"
START = "<!-- reference: start -->\n"
END = "<!-- reference: end -->\n"


def render_default(key: KeyDescription) -> str:
    if key.required:
        return "required"
    if key.default is None or key.default in ([], ""):
        return ""
    if isinstance(key.default, bool):
        return f"`{str(key.default).lower()}`"
    if isinstance(key.default, list):
        return f"`{key.default}`".replace("'", '"')
    return f"`{key.default}`"


def render_reference() -> str:
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    rows += [f"| `{key.key}` | {key.kind} | {render_default(key)} | {key.description} |" for key in describe_keys()]
    return "\n".join(rows) + "\n"


def test_the_reference_names_every_key() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    written, _, after = rest.partition(END)
    if os.environ.get("REPLICATOR_WRITE_DOCS"):
        DOCUMENT.write_text(f"{before}{START}\n{render_reference()}\n{END}{after}", encoding="utf-8")
        return
    assert written.strip() == render_reference().strip()


def test_the_example_of_a_cache_is_right(tmp_path: Path) -> None:
    text = DOCUMENT.read_text(encoding="utf-8").partition("<!-- example: cache -->")[2]
    example = text.partition("```yaml\n")[2].partition("```")[0]
    for name in ("config.json", "our-ca.pem", "us.crt", "us.key"):
        (tmp_path / name).touch()
    example = example.replace("~/.docker/", "").replace("tls/", "")
    (tmp_path / "example.yaml").write_text(example, encoding="utf-8")
    problems = check_settings(tmp_path / "example.yaml", {"REPLICATOR_PEER_SECRET": "a-secret-of-this-test"})
    about_files = ("ca_file", "client_certificate")
    assert [str(one) for one in problems if not one.key.endswith(about_files)] == []
