#!/bin/sh
# The working directory that the official image has.
set -eu
install -d -o redis -g redis /data
