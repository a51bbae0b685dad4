"""Settings that no run can have, and the document's as defaults."""

from dataclasses import replace

import pytest

from harness.cluster import Owner, configuration, node_state
from harness.errors import UsageFailure
from harness.settings import Settings
from harness.tools import fits_kind, fits_kubectl


def test_the_defaults_are_the_documents():
    settings = Settings()
    assert (settings.parallelism, settings.workers, settings.timeout) == (2, 2, 300)
    assert len(settings.items) == 9
    assert not settings.keep


def test_two_runs_have_two_names():
    assert Settings().name != Settings().name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"parallelism": 0}, "--parallelism 0 would start no worker; use 1 or more."),
        ({"workers": 0}, "--nodes 0 leaves no node for pods; use 1 or more."),
        ({"sleep": -1}, "--sleep -1 is in the past; use 0 seconds or more."),
        ({"timeout": 0}, "--timeout 0 is over at once; use seconds above 0."),
        ({"items": ()}, "there are no items to seed; give at least one."),
        ({"name": "Über"}, "can't name a cluster"),
        ({"name": "a" * 41}, "can't name a cluster"),
        ({"name": "-a"}, "can't name a cluster"),
        ({"name": "a/../b"}, "can't name a cluster"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(change, sentence):
    with pytest.raises(UsageFailure) as caught:
        Settings(**change)
    assert sentence in str(caught.value)


def test_a_cluster_has_a_control_plane_and_workers_on_loopback():
    config = configuration(2, restricted=False, cgroup_v1=False)
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker"]
    assert config["networking"]["apiServerAddress"] == "127.0.0.1"
    assert set(config) == {"kind", "apiVersion", "networking", "nodes", "kubeadmConfigPatches"}
    assert len(config["kubeadmConfigPatches"]) == 1


def test_a_restricted_host_relaxes_the_nodes():
    config = configuration(1, restricted=True, cgroup_v1=False)
    assert config["featureGates"] == {"KubeletInUserNamespace": True}
    assert "restrict_oom_score_adj = true" in config["containerdConfigPatches"][0]


def test_cgroup_v1_is_allowed_where_the_host_has_it():
    config = configuration(1, restricted=False, cgroup_v1=True)
    assert "failCgroupV1: false" in config["kubeadmConfigPatches"][1]


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ([{"type": "Ready", "status": "True"}], "Ready"),
        ([{"type": "Ready", "status": "False", "message": "no CNI"}], "not ready (no CNI)"),
        ([{"type": "Ready", "status": "Unknown", "reason": "Lost"}], "not ready (Lost)"),
        ([], "not ready (it has not reported yet)"),
    ],
)
def test_node_state(conditions, state):
    assert node_state({"status": {"conditions": conditions}}) == state


@pytest.mark.parametrize(
    ("found", "wanted", "fits"),
    [("0.33.0", "0.33.0", True), ("0.33.9", "0.33.0", True), ("0.32.0", "0.33.0", False)],
)
def test_kind_fits_by_minor_version(found, wanted, fits):
    assert fits_kind(found, wanted) is fits


@pytest.mark.parametrize(
    ("found", "fits"),
    [("1.37.0", True), ("1.36.9", True), ("1.38.0", True), ("1.35.0", False), ("2.37.0", False)],
)
def test_kubectl_fits_within_one_minor_version(found, fits):
    assert fits_kubectl(found, "1.37.2") is fits


def test_this_process_is_not_gone():
    assert not Owner.of(str(Owner.present())).gone(engine_is_here=True)


def test_a_process_id_that_was_used_again_is_another_process():
    assert replace(Owner.present(), started="1").gone(engine_is_here=True)


def test_what_ran_before_the_last_boot_is_gone_if_the_engine_is_this_machines():
    earlier = replace(Owner.present(), boot="another")
    assert earlier.gone(engine_is_here=True)
    assert not earlier.gone(engine_is_here=False)


def test_a_process_of_another_container_may_run():
    assert not replace(Owner.present(), namespace="pid:[1]", started="1").gone(True)
