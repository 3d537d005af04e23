// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package api answers HTTP.
//
// What Prometheus serves under /api/v1 is served by Prometheus's own code (web/api/v1) over the replicated storage, so
// that answers and error codes are the ones that clients know. Around it stand the things that a cluster adds: the
// remote-write receiver that commits through Raft (package remotewrite), the admin calls that act on all nodes, the
// consistency level of a read, and /api/v1/cluster. Beside it are what Prometheus's web server has outside of /api/v1 and
// cannot be had without it (federation, consoles, lifecycle), and the admin API over gRPC, which shares the port.
//
// Every request passes, from the outside in:
//
//	gRPC       calls by HTTP/2 and content type
//	recover    a panic is a 500 and a log line, not the end of the process
//	route      the own handler of a path and method where there is one, Prometheus's otherwise
//	instrument the prometheus_http_* metrics
//	ready      503 until this node has caught up once, and again when it stops
//	consistent reads only: waits until this node's state is as fresh as the reader asked for
//
// The consistency level is settled before Prometheus's handler sees the request, because a storage.Querier gets no
// context: once the barrier has passed, whatever the handler reads is fresh enough.
package api
