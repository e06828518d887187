from __future__ import annotations

import contextlib

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from replicator.config import document as module
from replicator.config.document import MAX_DEPTH, DocumentError, read_document


def data_of(text: str) -> object:
    return read_document(text).data


@pytest.fixture(params=["c", "python"])
def _parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = yaml.SafeLoader if request.param == "python" else getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    monkeypatch.setattr(module, "_LOADER", loader)


@pytest.mark.usefixtures("_parser")
class TestReading:
    def test_values_are_what_they_look_like(self) -> None:
        text = "{a: 1, b: 1.5, c: true, d: null, e: ~, f: '1', g: \"true\", h: x, i: [1, -2], j: !!str 5}"
        assert data_of(text) == {
            "a": 1, "b": 1.5, "c": True, "d": None, "e": None, "f": "1", "g": "true", "h": "x", "i": [1, -2], "j": "5",
        }  # fmt: skip

    @pytest.mark.parametrize(
        "text", ["yes", "no", "on", "off", "True", "012", "0x10", "5001:22", "2026-01-01", "1_000", "1e5", ".inf"]
    )
    def test_nothing_is_guessed(self, text: str) -> None:
        assert data_of(f"a: {text}") == {"a": text}

    def test_every_key_and_item_has_its_line(self) -> None:
        document = read_document("a: 1\nb:\n  - x\n  - c: 2\n    d:\n      - 3\n")
        assert document.line(("a",)) == 1
        assert document.line(("b",)) == 2
        assert document.line(("b", 1)) == 4
        assert document.line(("b", 1, "d")) == 5
        assert document.line(("b", 1, "d", 0)) == 6

    def test_an_unknown_place_is_on_the_line_of_the_section_around_it(self) -> None:
        document = read_document("a: 1\nb:\n  c: 2\n")
        assert document.line(("b", "missing", "too")) == 2

    def test_a_key_that_appears_twice_is_reported_and_the_first_value_kept(self) -> None:
        document = read_document("a: 1\nb: {c: 1}\na: 2\n")
        assert document.data == {"a": 1, "b": {"c": 1}}
        [(finding, line)] = document.findings
        assert (finding.path, finding.message, line) == (("a",), "appears twice, first on line 1", 3)

    def test_an_alias_stands_for_its_anchor(self) -> None:
        assert data_of("a: &x {b: [1]}\nc: *x\n") == {"a": {"b": [1]}, "c": {"b": [1]}}

    @pytest.mark.parametrize(
        ("text", "message", "line"),
        [
            ("", "empty file", 1),
            ("a: 1\n---\nb: 2\n", "expected one document", 2),
            ("a: 1\nb: !!python/object:os.system {}\n", "tags are not supported", 2),
            ("a: !!binary aGk=\n", "tags are not supported", 1),
            ("a: 1\nb: *nowhere\n", "an alias names no anchor", 2),
            ("a: &x [*x]\n", "an alias names no anchor", 1),
            ("a: &x {b: 1}\nc:\n  <<: *x\n", "merge keys are not supported", 3),
            ("a: 1\n? [b]\n: 2\n", "expected a key", 2),
            ("a: 1\n  b: 2\n", "not YAML", 2),
            ("a: [1\n", "not YAML", 2),
            ("a: \x00\n", "not YAML", None),
            (f"a: {'[' * 40}{']' * 40}", f"nested deeper than {MAX_DEPTH}", 1),
        ],
    )
    def test_what_is_no_plain_document_is_refused(self, text: str, message: str, line: int | None) -> None:
        with pytest.raises(DocumentError, match=message) as caught:
            read_document(text)
        assert line is None or caught.value.line == line

    def test_aliases_cannot_blow_up(self) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
        with pytest.raises(DocumentError, match="after expanding aliases"):
            read_document("\n".join(lines))


@given(st.text(alphabet="ab:-[]{}&*!?|>'\"#\n \t<,0.~%@`\x00\x85\u2028", max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(DocumentError):
        assert read_document(text).lines


def test_a_very_deep_document_ends_in_an_error() -> None:
    with pytest.raises(DocumentError):
        read_document("[" * 100_000)
