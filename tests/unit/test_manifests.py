"""The manifests are the document's, and a run's differences are told."""

import pytest
import yaml

from harness import manifests, paths
from harness.errors import UsageFailure

# The document's "Starting Redis" and "Defining a Job", value for value.
DOCUMENT = {
    "redis-pod.yaml": {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "redis-master", "labels": {"app": "redis"}},
        "spec": {
            "containers": [
                {
                    "name": "master",
                    "image": "redis",
                    "env": [{"name": "MASTER", "value": "true"}],
                    "ports": [{"containerPort": 6379}],
                }
            ]
        },
    },
    "redis-service.yaml": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "redis"},
        "spec": {"ports": [{"port": 6379, "targetPort": 6379}], "selector": {"app": "redis"}},
    },
    "job.yaml": {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "job-wq-2"},
        "spec": {
            "parallelism": 2,
            "template": {
                "metadata": {"name": "job-wq-2"},
                "spec": {
                    "containers": [{"name": "c", "image": "gcr.io/myproject/job-wq-2"}],
                    "restartPolicy": "OnFailure",
                },
            },
        },
    },
}


@pytest.mark.parametrize("file", DOCUMENT)
def test_a_manifest_is_the_documents_field_by_field(file):
    found = yaml.safe_load((paths.MANIFESTS / file).read_text())
    assert list(manifests.differences(DOCUMENT[file], found)) == []


def test_there_are_no_other_manifests():
    assert sorted(path.name for path in paths.MANIFESTS.glob("*.yaml")) == sorted(DOCUMENT)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"a": 1}, [("a", None, 1)]),
        ({}, []),
        ({"x": {"y": [1, 3]}}, [("x.y[1]", 2, 3)]),
        ({"x": {"y": [1, 2, 4]}}, [("x.y[2]", None, 4)]),
        ({"x": None}, [("x", {"y": [1, 2]}, None)]),
    ],
)
def test_differences_name_every_leaf(change, expected):
    document = {"x": {"y": [1, 2]}}
    assert list(manifests.differences(document, {**document, **change})) == expected


def test_overrides_are_applied_in_memory_and_told():
    path = paths.MANIFESTS / "job.yaml"
    before = path.read_bytes()
    prepared = manifests.prepare(
        path, "Job", {manifests.JOB_IMAGE: "localhost/x:1", manifests.JOB_PARALLELISM: 2}
    )
    assert [str(difference) for difference in prepared.differences] == [
        "job.yaml: spec.template.spec.containers[0].image "
        "gcr.io/myproject/job-wq-2 -> localhost/x:1"
    ]
    assert yaml.safe_load(prepared.text())["spec"]["template"]["spec"]["containers"] == [
        {"name": "c", "image": "localhost/x:1"}
    ]
    assert path.read_bytes() == before


def test_a_new_value_is_told_as_unset_in_the_document():
    prepared = manifests.prepare(
        paths.MANIFESTS / "redis-pod.yaml", "Pod", {manifests.POD_PULL_POLICY: "IfNotPresent"}
    )
    assert [str(difference) for difference in prepared.differences] == [
        "redis-pod.yaml: spec.containers[0].imagePullPolicy (unset) -> IfNotPresent"
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"kind: [", "is not YAML at line 1; correct it or restore it."),
        (b"\xff\xfe\x00", "is not YAML; correct it or restore it."),
        (b"kind: Pod", "holds a Pod, not a Job; correct it or restore it."),
        (b"kind: Job\n---\nkind: Job", "must hold one object, a Job; correct it or restore it."),
        (b"- 1", "must hold one object, a Job; correct it or restore it."),
        (b"", "must hold one object, a Job; correct it or restore it."),
    ],
)
def test_what_is_no_job_is_refused_in_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageFailure) as caught:
        manifests.load(path, "Job")
    assert str(caught.value) == f"{path} {sentence}"


def test_a_missing_manifest_is_refused(tmp_path):
    with pytest.raises(UsageFailure, match=r"can't be read \(No such file or directory\)"):
        manifests.load(tmp_path / "job.yaml", "Job")


def test_an_override_must_lead_somewhere(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("kind: Job\nspec: {template: {spec: {containers: []}}}")
    with pytest.raises(UsageFailure, match=r"has no spec\.template\.spec\.containers"):
        manifests.prepare(path, "Job", {manifests.JOB_IMAGE: "x"})
