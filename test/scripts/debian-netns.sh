#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs what tests on network namespaces need when it is missing: iproute2, iptables, nsenter and strace.
set -euo pipefail

"$(dirname "$0")/debian-install.sh" ip=iproute2 iptables nsenter=util-linux strace
iptables --version
strace --version | sed -n 1p
