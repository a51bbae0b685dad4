"""Images from packages: keys, layers and steps, without an engine or a network."""

import io
import json
import shutil
import tarfile
import threading
from pathlib import Path

import pytest

from harness import paths, process
from harness.images import golang, layers, packages, steps


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A copy of the recipe to change; call it to forget what was computed before."""
    copy = shutil.copytree(paths.NODE_IMAGE, tmp_path / "node-image")
    bundle = tmp_path / "ca.crt"
    bundle.write_text("one")
    monkeypatch.setattr(paths, "NODE_IMAGE", copy)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))

    def forget():
        for cached in (packages.key, packages.versions, packages.ca_bundle):
            cached.cache_clear()

    forget()
    yield copy, forget
    monkeypatch.undo()
    forget()


def tags():
    return {name: packages.tag(name) for name in packages.NAMES}


@pytest.mark.parametrize(
    ("changed", "images"),
    [
        ("programs/kubernetes/main.go", {"node"}),
        ("programs/go.sum", {"node"}),
        ("node/pod-network", {"node"}),
        ("roots/node.sh", {"node"}),
        ("roots/python.sh", {"python"}),
        ("roots/redis.sh", {"redis"}),
        ("roots/base.sh", {"node", "python", "redis"}),
        ("../ca.crt", {"python"}),
        ("README.md", set()),
    ],
)
def test_an_image_has_another_tag_exactly_when_its_own_recipe_changes(recipe, changed, images):
    folder, forget = recipe
    before = tags()
    forget()
    (folder / changed).write_text("another")
    after = tags()
    assert {name for name in packages.NAMES if before[name] != after[name]} == images


@pytest.mark.parametrize(
    ("old", "new", "images"),
    [
        ('kubernetes = "1.37.2"', 'kubernetes = "1.37.3"', {"node"}),
        ('redis = ["redis-server"]', 'redis = ["redis"]', {"redis"}),
        ('debian = "trixie"', 'debian = "forky"', {"node", "python", "redis"}),
    ],
)
def test_a_pin_changes_the_images_that_it_is_for(recipe, old, new, images):
    folder, forget = recipe
    before = tags()
    forget()
    pins = folder / "versions.toml"
    assert old in pins.read_text()
    pins.write_text(pins.read_text().replace(old, new))
    after = tags()
    assert {name for name in packages.NAMES if before[name] != after[name]} == images


def test_tags_are_names_that_no_registry_answers_for():
    assert all(tag.startswith("localhost/") for tag in tags().values())


def test_the_images_of_kubeadm_have_its_names():
    images = packages._cluster_images(Path("programs"), Path("network.tar"))
    names = {tag for image in images for tag in image.tags}
    assert "registry.k8s.io/kube-apiserver:v1.37.2" in names
    assert "registry.k8s.io/coredns/coredns:v1.14.6" in names
    assert "registry.k8s.io/etcd:3.7.0-0" in names
    lowest = {image.layers[0] for image in images if len(image.layers) > 1}
    assert lowest == {Path("programs/kubernetes.tar")}  # unpacked once


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif content.startswith("link:"):
                member.type, member.linkname = tarfile.LNKTYPE, content.removeprefix("link:")
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content.encode()))
    return path


def contents(path):
    with tarfile.open(path) as archive:
        return {
            member.name: archive.extractfile(member).read().decode() if member.isreg() else None
            for member in archive
        }


def difference(tmp_path, lower, upper):
    layers.write_difference(
        write_tar(tmp_path / "lower", lower), write_tar(tmp_path / "upper", upper), tmp_path / "out"
    )
    return contents(tmp_path / "out")


def test_a_layer_has_what_is_new_and_what_is_changed(tmp_path):
    lower = {"./etc": None, "./etc/same": "1", "./etc/changed": "1"}
    upper = {"./etc": None, "./etc/same": "1", "./etc/changed": "2", "./etc/new": "3"}
    assert difference(tmp_path, lower, upper) == {"./etc/changed": "2", "./etc/new": "3"}


def test_a_layer_hides_what_was_removed(tmp_path):
    lower = {"./d": None, "./d/x": "1", "./d/sub": None, "./d/sub/y": "1", "./keep": "1"}
    assert difference(tmp_path, lower, {"./d": None, "./keep": "1"}) == {
        "d/.wh.sub": "",
        "d/.wh.x": "",
    }


def test_a_hard_link_to_a_lower_layer_becomes_a_file(tmp_path):
    lower = {"./a": "content"}
    assert difference(tmp_path, lower, {"./a": "content", "./b": "link:./a"}) == {"./b": "content"}


def test_a_hard_link_within_the_layer_stays_one(tmp_path):
    difference(tmp_path, {}, {"./a": "content", "./b": "link:./a"})
    with tarfile.open(tmp_path / "out") as archive:
        assert archive.getmember("./b").islnk()


def test_an_archive_names_its_layers_by_digest_and_has_shared_ones_once(tmp_path):
    layer = write_tar(tmp_path / "layer", {"f": "1"})
    other = write_tar(tmp_path / "other", {"g": "1"})
    images = [
        layers.Image(("localhost/a:1",), (layer,), {"Cmd": ["f"]}),
        layers.Image(("localhost/b:1",), (layer, other)),
    ]
    layers.write_archive(images, tmp_path / "archive", machine="aarch64")
    with tarfile.open(tmp_path / "archive") as archive:
        names = archive.getnames()
        manifest = json.load(archive.extractfile("manifest.json"))
        config = json.load(archive.extractfile(manifest[0]["Config"]))
    assert len(names) == len(set(names)) == 5
    assert config["architecture"] == "arm64"
    assert config["config"] == {"Cmd": ["f"]}
    assert config["rootfs"]["diff_ids"] == [f"sha256:{layers.digest(layer)}"]
    assert manifest[1]["Layers"] == [f"{layers.digest(one)}.tar" for one in (layer, other)]


def write(text):
    return lambda target: target.write_text(text)


def fail(target):
    target.write_text("half")
    raise OSError("disk")


def test_steps_run_in_order_and_once(tmp_path):
    made = []

    def make(name):
        def note(target):
            made.append(name)
            target.touch()

        return note

    base = steps.file_step("base", tmp_path / "base", make("base"))
    uppers = [
        steps.file_step(name, tmp_path / name, make(name), needs=[base]) for name in ("a", "b")
    ]
    for _ in range(2):
        steps.run(uppers, lambda _: None, lambda: None)
    assert made[0] == "base"
    assert sorted(made[1:]) == ["a", "b"]


def test_steps_that_do_not_need_each_other_run_at_once(tmp_path):
    both = threading.Barrier(2, timeout=10)  # broken if one waited for the other to end

    def meet(target):
        both.wait()
        target.touch()

    goals = [steps.file_step(name, tmp_path / name, meet) for name in ("a", "b")]
    steps.run(goals, lambda _: None, lambda: None)
    assert all(goal.done() for goal in goals)


def test_what_is_done_needs_nothing_any_more(tmp_path):
    needed = steps.file_step("needed", tmp_path / "needed", fail)
    goal = steps.file_step("goal", tmp_path / "goal", write("x"), needs=[needed])
    assert steps.open_steps([goal]) == [needed, goal]
    (tmp_path / "goal").touch()
    assert steps.open_steps([goal]) == []


def test_a_failed_step_leaves_nothing_and_ends_the_others(tmp_path):
    given_up = []
    broken = steps.file_step("broken", tmp_path / "broken", fail)
    goal = steps.file_step("goal", tmp_path / "goal", write("x"), needs=[broken])
    with pytest.raises(OSError, match="disk"):
        steps.run([goal], lambda _: None, lambda: given_up.append(True))
    assert given_up
    assert list(tmp_path.iterdir()) == []


def test_a_part_is_cancelled_alone_or_with_the_whole():
    whole = process.Cancellation()
    alone, other = process.Cancellation(whole), process.Cancellation(whole)
    alone.cancel()
    other.check()
    whole.check()
    with pytest.raises(process.Cancelled):
        alone.check()
    whole.cancel()
    with pytest.raises(process.Cancelled):
        other.check()


def test_cancelling_the_whole_ends_the_programs_of_a_part():
    whole = process.Cancellation()
    part = process.Cancellation(whole)
    started = threading.Event()

    def cancel():
        started.wait(10)
        whole.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(process.Cancelled):
        process.run(
            ["sh", "-c", "echo started; exec sleep 60"],
            cancellation=part,
            on_line=lambda _: started.set(),
        )
    thread.join()


@pytest.mark.parametrize(
    ("said", "enough"),
    [
        ("go version go1.26.0 linux/amd64", True),
        ("go version go1.27.3 linux/amd64", True),
        ("go version go1.26 linux/amd64", False),
        ("go version go1.9.7 linux/amd64", False),
        ("go version devel +abc", False),
    ],
)
def test_a_go_is_new_enough_or_not(said, enough):
    assert (golang.version(said) >= golang.numbers("1.26.0")) is enough


def test_the_kubelet_gets_its_version_from_the_linker():
    flags = packages._linker_flags()
    assert "-X=k8s.io/component-base/version.gitVersion=v1.37.2" in flags


@pytest.mark.parametrize(
    ("gibibytes", "processors", "limit"),
    [(24, 2, 2), (9, 8, 1), (8, 8, None), (0, 1, None)],
)
def test_compilers_keep_their_garbage_only_where_memory_allows(gibibytes, processors, limit):
    variables = golang.collection(gibibytes * golang.GIB, processors)
    wanted = {"GOGC": "off", "GOMEMLIMIT": f"{limit * golang.GIB}B"} if limit else {}
    assert variables == wanted


def test_the_memory_that_programs_can_have():
    assert golang.available_memory("MemTotal: 9 kB\nMemAvailable:   22 kB\n") == 22 * 1024
    assert golang.available_memory("MemTotal: 9 kB\n") == 0
