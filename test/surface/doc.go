// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package surface tests on real nodes, one alone and a follower of three, that what was written for Prometheus works
// with it unchanged: its Go client, the stubs of its old gRPC API, OTLP exporters, a federating server.
package surface
