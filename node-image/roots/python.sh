#!/bin/sh
# Make Debian's Python an image's own: `pip install` may write, and trusts what the host trusts.
set -eu
rm /usr/lib/python3*/EXTERNALLY-MANAGED
# behind a proxy that inspects TLS, PyPI's certificate is signed by an authority only the host knows
cp /recipe/ca-certificates.crt /etc/ssl/certs/
