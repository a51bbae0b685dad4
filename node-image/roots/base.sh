#!/bin/sh
# Last step in every root: remove what only the installation needed, this recipe included.
set -eu
rm -rf /var/cache/debconf/*-old /var/cache/ldconfig /var/lib/dpkg/*-old /var/log/* /recipe
