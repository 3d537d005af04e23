// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package promql runs Prometheus's own PromQL test files against a cluster of three nodes: every sample goes through
// Raft from a follower, and every query is answered from that follower's state.
package promql
