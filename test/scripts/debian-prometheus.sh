#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs Debian's Prometheus, promtool, node exporter and Alertmanager when they are missing.
set -euo pipefail

"$(dirname "$0")/debian-install.sh" prometheus promtool=prometheus prometheus-node-exporter prometheus-alertmanager
# Not head: it would close the pipe while the other still writes, and pipefail would call that an error.
prometheus --version 2>&1 | sed -n 1p
prometheus-node-exporter --version 2>&1 | sed -n 1p
prometheus-alertmanager --version 2>&1 | sed -n 1p
