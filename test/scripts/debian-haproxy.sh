#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs Debian's HAProxy when it is missing.
set -euo pipefail

"$(dirname "$0")/debian-install.sh" haproxy
# Not head: it would close the pipe while the other still writes, and pipefail would call that an error.
haproxy -v | sed -n 1p
