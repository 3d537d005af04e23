#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# with-docker.sh COMMAND...: runs a command with a Docker Engine and docker-compose. An engine that answers is used as
# it is; else one is started for the command alone, with data of its own and without touching the machine's packet
# filter. That takes root; what is missing is installed from Debian.
set -euo pipefail

want=(docker-compose)
docker info >/dev/null 2>&1 || want+=(dockerd=docker.io iptables)
"$(dirname "$0")/debian-install.sh" "${want[@]}"

if docker info >/dev/null 2>&1; then
  exec "$@"
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/deucalion-docker-XXXXXX")
setsid dockerd --host "unix://$dir/docker.sock" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/docker.pid" \
  --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$dir/log" 2>&1 </dev/null &
engine=$!
# shellcheck disable=SC2317 # called by the trap
stop() {
  kill -TERM "$engine" 2>/dev/null || true
  wait "$engine" 2>/dev/null || true
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export DOCKER_HOST=unix://$dir/docker.sock
for _ in $(seq 300); do
  if docker info >/dev/null 2>&1; then
    "$@"
    exit
  fi
  kill -0 "$engine" 2>/dev/null || break
  sleep 0.1
done
echo "the Docker Engine does not start:" >&2
tail -n 20 "$dir/log" >&2
exit 1
