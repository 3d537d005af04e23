#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# Installs Debian's VictoriaMetrics (one node) when it is missing.
set -euo pipefail

"$(dirname "$0")/debian-install.sh" victoria-metrics
dpkg-query -W victoria-metrics
