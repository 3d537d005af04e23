// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

// Every service discovery that Prometheus has. Build tags of Prometheus leave some out: remove_all_sd with, for example,
// enable_kubernetes_sd.
import _ "github.com/prometheus/prometheus/plugins"
