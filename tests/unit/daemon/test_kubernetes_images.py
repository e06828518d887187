"""The images that Kubernetes manifests name, and what is said of files that cannot be read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import InvalidInput
from replicator.daemon import kubernetes_images
from replicator.daemon.kubernetes_images import FoundImages, read_folder, read_text

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = "sha256:" + "ab" * 32
HUB = "docker.io/library"


def found_in(text: str, name: str = "app.yaml") -> FoundImages:
    found = FoundImages()
    read_text(found, name, text)
    return found


def images_of(text: str) -> list[str]:
    found = found_in(text)
    assert found.problems == []
    return list(found.images)


def problems_of(text: str, name: str = "app.yaml") -> list[str]:
    return [str(problem) for problem in found_in(text, name).problems]


DEPLOYMENT = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: app, annotations: {{image: not-an-image}}}}
spec:
  template:
    spec:
      initContainers:
        - {{name: init, image: busybox}}
      containers:
        - name: app
          image: quay.io/org/app:1.0
          env: [{{name: image, value: nothing}}]
        - name: side
          image: ghcr.io/org/side@{DIGEST}
      ephemeralContainers:
        - {{name: debug, image: "nginx:1.27"}}
      volumes:
        - name: models
          image: {{reference: "quay.io/org/models:v2", pullPolicy: Always}}
        - name: plain
          emptyDir: {{}}
"""


def test_containers_of_every_kind_and_image_volumes_are_found() -> None:
    assert images_of(DEPLOYMENT) == [
        f"{HUB}/busybox:latest",
        "quay.io/org/app:1.0",
        f"ghcr.io/org/side@{DIGEST}",
        f"{HUB}/nginx:1.27",
        "quay.io/org/models:v2",
    ]


def test_the_kind_of_an_object_does_not_matter() -> None:
    cron = "kind: CronJob\nspec: {jobTemplate: {spec: {template: {spec: {containers: [{image: 'a/cron:1'}]}}}}}"
    custom = "kind: Workflow\nspec: {steps: [{pod: {containers: [{image: 'a/custom:1'}]}}]}"
    listed = "kind: List\nitems:\n- spec: {containers: [{image: 'a/first:1'}]}\n- spec: {containers: [{image: 'b:2'}]}"
    assert images_of(cron) == ["docker.io/a/cron:1"]
    assert images_of(custom) == ["docker.io/a/custom:1"]
    assert images_of(listed) == ["docker.io/a/first:1", f"{HUB}/b:2"]


def test_an_image_is_named_once_however_it_is_written() -> None:
    text = "containers: [{image: nginx}, {image: 'docker.io/library/nginx:latest'}, {image: 'index.docker.io/nginx'}]"
    assert images_of(text) == [f"{HUB}/nginx:latest"]


@pytest.mark.parametrize(
    "text",
    [
        "image: nginx",
        "containers: {image: nginx}",
        "containers: [nginx]",
        "containers: [{image: {repository: nginx}}]",
        "containers: [{image: ''}]",
        "volumes: [{image: nginx}]",
        "volumes: [{hostPath: {reference: nginx}}]",
        "? [containers]\n: [{image: nginx}]",
        "just text",
        "",
        "# only a comment\n",
        "%YAML 1.2\n---\n",
    ],
)
def test_what_is_no_container_is_no_image(text: str) -> None:
    assert images_of(text) == []


def test_a_malformed_document_does_not_stop_the_others() -> None:
    text = "containers: [{image: one}]\n---\nkind: [\n---  \ncontainers: [{image: two}]\n"
    found = found_in(text)
    assert list(found.images) == [f"{HUB}/one:latest", f"{HUB}/two:latest"]
    (problem,) = found.problems
    assert (problem.file, problem.line) == ("app.yaml", 4)
    assert problem.reason.startswith("not YAML: ")


def test_a_malformed_name_is_reported_with_its_line() -> None:
    found = found_in("kind: Pod\nspec:\n  containers:\n  - image: 'UPPER/Name:1'\n  - image: nginx\n")
    assert list(found.images) == [f"{HUB}/nginx:latest"]
    assert [problem.line for problem in found.problems] == [4]


@pytest.mark.parametrize("image", ["'{{ .Values.image }}'", '"app:{{ .Chart.AppVersion }}"', "$(IMAGE)", "app:${TAG}"])
def test_a_template_in_an_image_is_reported_with_its_line(image: str) -> None:
    (problem,) = problems_of(f"kind: Pod\ncontainers:\n- name: one\n  image: {image}\n")
    assert problem.startswith("app.yaml:4: ")
    assert problem.endswith("is a template: render it first")


def test_a_template_that_is_no_yaml_is_reported_with_its_line() -> None:
    text = "kind: Pod\n{{- if .Values.on }}\nspec: [\n{{- end }}\n---\ncontainers: [{image: nginx}]"
    found = found_in(text)
    assert list(map(str, found.problems)) == ["app.yaml:2: is a template: render it first"]
    assert list(found.images) == [f"{HUB}/nginx:latest"]


def test_unknown_tags_and_values_are_only_text() -> None:
    text = "a: !Ref x\nb: !!python/object/apply:os.system ['true']\nc: 2001-99-99\ncontainers: [{image: !tag nginx}]"
    assert images_of(text) == [f"{HUB}/nginx:latest"]


def test_aliases_are_looked_at_once() -> None:
    lines = ["x0: &x0 {containers: [{image: nginx}]}"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 20)}]" for n in range(1, 30)]
    assert images_of("\n".join(lines)) == [f"{HUB}/nginx:latest"]
    assert images_of("a: &a {containers: [{image: nginx}], self: *a}") == [f"{HUB}/nginx:latest"]


def test_deep_nesting_ends() -> None:
    for text in ("[" * 100_000, "[" * 201 + "]" * 201, "{a: " * 100_000, "- " * 10_000, "? " * 10_000):
        (problem,) = problems_of(text)
        assert problem == "app.yaml:1: is nested too deeply"
    assert images_of("[" * 190 + "{containers: [{image: nginx}]}" + "]" * 190) == [f"{HUB}/nginx:latest"]


def test_json_is_read_like_yaml() -> None:
    document = {"kind": "List", "items": [{"spec": {"containers": [{"image": "nginx"}]}}]}
    assert images_of(json.dumps(document, indent=2)) == [f"{HUB}/nginx:latest"]
    found = found_in('{"containers":\t[{"image":"a\\/b:1"}],\n\t"x": "\\ud83d\\ude00", "y": "\\ud83d"}', "app.json")
    assert (list(found.images), found.problems) == (["docker.io/a/b:1"], [])
    assert problems_of("{", "app.json") != []


def test_a_folder_is_read_with_everything_below_it(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a.yaml").write_text("containers: [{image: one}]")
    (tmp_path / "deep" / "b.YML").write_text("\ufeffcontainers: [{image: two}]")
    (tmp_path / "deep" / "er" / "c.json").write_text('{"containers": [{"image": "three"}]}')
    (tmp_path / "values.txt").write_text("containers: [{image: four}]")
    (tmp_path / "deep" / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    found = read_folder(tmp_path)
    assert list(found.images) == [f"{HUB}/{name}:latest" for name in ("one", "two", "three")]
    assert list(map(str, found.problems)) == ["deep/bad.yaml: cannot be read: is not UTF-8 text"]
    assert list(read_folder(tmp_path / "a.yaml").images) == [f"{HUB}/one:latest"]


def test_large_files_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_images, "MAX_FILE", 40)
    (tmp_path / "a.yaml").write_text("containers: [{image: one}]")
    (tmp_path / "b.yaml").write_text("#" * 41)
    found = read_folder(tmp_path)
    assert list(found.images) == [f"{HUB}/one:latest"]
    assert [problem.file for problem in found.problems] == ["b.yaml"]


def test_a_folder_without_manifests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="holds no"):
        read_folder(tmp_path)
    with pytest.raises(InvalidInput, match="expected a folder"):
        read_folder(tmp_path / "nothing")
