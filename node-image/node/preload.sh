#!/bin/sh
# Put the images of the cluster's own pods into the node's containerd, not unpacked.
# Runs in a container of the node's root, which is then committed. usage: preload.sh ARCHIVE
set -eu
archive=$1

mkfifo /tmp/containerd.log
containerd >/tmp/containerd.log 2>&1 &
{
    # a program that can't say when it is ready, but logs it
    if ! grep -q -m 1 'successfully booted'; then
        echo 'containerd did not start' >&2
        exit 1
    fi
    ctr --namespace=k8s.io images import --no-unpack --all-platforms "$archive"
    # pinned, so that the kubelet never collects them
    ctr --namespace=k8s.io images list --quiet | while read -r image; do
        ctr --namespace=k8s.io images label "$image" io.cri-containerd.pinned=pinned
    done
    kill $!
    cat >/dev/null # until it has ended
} </tmp/containerd.log
rm -rf "$archive" /tmp/containerd.log /run/containerd
