#!/usr/bin/env bash
# Copyright The Deucalion Authors
# SPDX-License-Identifier: Apache-2.0
#
# cluster.sh BINARY DIR: three nodes on loopback until Ctrl-C, which stops them; one that ends by itself is started again.
# HTTP 9090 9092 9094, Raft 9190 9192 9194, gossip 9191 9193 9195. Data in DIR/n1 ..., logs in DIR/n1.log ...
# The nodes scrape themselves and evaluate the alerts of deploy/prometheus. DEUCALION_FLAGS holds flags for all nodes;
# with --config.file they do what that file says instead.
set -euo pipefail

bin=$1
dir=$2
pids=()

# shellcheck disable=SC2317 # called by the trap
stop() {
  trap '' INT TERM
  echo "stopping"
  kill -TERM "${pids[@]}" 2>/dev/null || true
  wait "${pids[@]}" || true
  echo "all stopped; data are kept in $dir"
}

mkdir -p "$dir"
trap 'exit 130' INT
trap 'exit 143' TERM
trap stop EXIT
read -r -a extra <<<"${DEUCALION_FLAGS:-}"
if [[ " ${extra[*]-} " != *" --config.file"* ]]; then
  alerts=$(cd "$(dirname "$0")/../../deploy/prometheus" && pwd)/alerts.yml
  cat >"$dir/prometheus.yml" <<EOF
global: {scrape_interval: 5s, evaluation_interval: 5s}
rule_files: ['$alerts']
scrape_configs:
- job_name: deucalion
  static_configs: [{targets: ['127.0.0.1:9090', '127.0.0.1:9092', '127.0.0.1:9094']}]
EOF
  extra+=(--config.file="$dir/prometheus.yml")
fi
start() { # NUMBER
  local i=$1
  # A session of its own: Ctrl-C reaches this script alone, which then stops the nodes.
  setsid "$bin" \
    --node.id="n$i" \
    --storage.tsdb.path="$dir/n$i" \
    --web.listen-address="127.0.0.1:$((9088 + 2 * i))" \
    --web.enable-admin-api \
    --cluster.listen-address="127.0.0.1:$((9188 + 2 * i))" \
    --cluster.gossip-listen-address="127.0.0.1:$((9189 + 2 * i))" \
    --cluster.peer=127.0.0.1:9191 \
    --cluster.peer=127.0.0.1:9193 \
    --cluster.peer=127.0.0.1:9195 \
    --cluster.bootstrap-expect=3 \
    ${extra[@]+"${extra[@]}"} >>"$dir/n$i.log" 2>&1 &
  pids[i]=$!
}
for i in 1 2 3; do
  start "$i"
done

for i in 1 2 3; do
  port=$((9088 + 2 * i))
  until (exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET /-/ready HTTP/1.0\r\n\r\n' >&3 && head -n 1 <&3 | grep -q ' 200 ') 2>/dev/null; do
    if ! kill -0 "${pids[i]}" 2>/dev/null; then
      echo "n$i has ended; its log $dir/n$i.log ends so:" >&2
      tail -n 20 "$dir/n$i.log" >&2
      exit 1
    fi
    sleep 0.2
  done
  echo "n$i is ready: http://127.0.0.1:$port (pid ${pids[i]}, log $dir/n$i.log)"
done
echo "Ctrl-C stops all three. A node that ends, by kill -9 for instance, is started again after 5 s."
while sleep 1; do
  for i in 1 2 3; do
    if ! kill -0 "${pids[i]}" 2>/dev/null; then
      echo "n$i has ended; see $dir/n$i.log"
      sleep 5
      start "$i"
      echo "n$i is started again (pid ${pids[i]})"
    fi
  done
done
