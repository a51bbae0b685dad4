#!/bin/sh
# Turn a Debian root into that of a kind node, as the Dockerfile of kind's images/base does.
# /recipe has kind's files in files/ and ours in node/. usage: node.sh PAUSE-IMAGE
set -eu
pause_image=$1

# out of the Go module cache, where everything is read-only
cp -R --no-preserve=mode,ownership /recipe/files/. /
chmod 755 /usr/local/bin/* /kind/bin/*
sed -i "s|sandbox_image = .*|sandbox_image = \"$pause_image\"|" /etc/containerd/config.toml

cd /recipe/node
install -t /usr/local/bin within-bounds
install -D -m 644 -t /kind/manifests default-cni.yaml default-storage.yaml
install -D -m 644 -t /etc/kubernetes/kubelet.conf.d 10-cgroup-v1.conf
install -m 644 -t /kind 20-bounded.conf
sed -i 's|^KUBELET_EXTRA_ARGS=|&--config-dir=/etc/kubernetes/kubelet.conf.d |' /etc/default/kubelet
mkdir -p /etc/kubernetes/manifests

# Debian's programs, where kind's files look for them
for program in containerd containerd-shim-runc-v2 ctr; do
    ln -s "/usr/bin/$program" /usr/local/bin/
done
ln -s /usr/sbin/runc /usr/local/sbin/
mkdir -p /opt/cni
ln -s /usr/lib/cni /opt/cni/bin
cd /usr/lib/cni
for plugin in *; do
    case $plugin in host-local | loopback | portmap | ptp) ;; *) rm "$plugin" ;; esac
done
rm -rf /etc/cni/net.d/* /usr/bin/containerd-shim /usr/bin/containerd-shim-runc-v1
for program in kubeadm kubectl kubelet; do
    ln -s /usr/local/bin/kubernetes "/usr/bin/$program"
done

# systemd in a container, no more of it than the kubelet and containerd need
units=/usr/lib/systemd/system
rm -f /etc/systemd/system/*.wants/* "$units"/multi-user.target.wants/* \
    "$units"/basic.target.wants/* "$units"/local-fs.target.wants/* \
    "$units"/sockets.target.wants/*udev* "$units"/sockets.target.wants/*initctl* \
    "$units"/sysinit.target.wants/systemd-tmpfiles-setup.service
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nReadKMsg=no\n' >/etc/systemd/journald.conf.d/kind.conf
ln -sf /usr/lib/systemd/systemd /usr/sbin/init
systemctl enable containerd.service kubelet.service undo-mount-hacks.service
systemctl mask systemd-binfmt.service # it would register things kernel-wide

# each container of a node sees the node's product name, not the host's
ctr oci spec |
    jq '.hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}]
        | del(.process.rlimits)' >/etc/containerd/cri-base.json

# what kube-proxy and the pod network call, with the libraries: the node's own, in a few megabytes
network=/recipe/network
for program in sh cat mv ip nft xtables-nft-multi; do
    install -D "$(command -v "$program")" "$network/usr/sbin/$program"
done
for extensions in /usr/lib/*/xtables; do
    mkdir -p "$network$extensions"
    cp "$extensions"/*.so "$network$extensions/"
done
find "$network" -type f -exec ldd {} + | grep -o '/[^ ]* (' | sort -u | while read -r library _; do
    install -D "$library" "$network$library"
done
for family in iptables ip6tables; do
    for suffix in '' -save -restore; do
        ln -s xtables-nft-multi "$network/usr/sbin/$family$suffix"
    done
done
mkdir -p "$network/bin" "$network/tmp" "$network/etc"
ln -s /usr/sbin/sh "$network/bin/sh"
install -t "$network/usr/sbin" /recipe/node/pod-network
tar --create --file /network.tar --sort=name --owner=0 --group=0 --directory "$network" .
