// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package monitor makes Prometheus's own managers work for a cluster. It scrapes targets, evaluates rules and notifies
// Alertmanagers with the scrape, rules and notifier packages of Prometheus, appends through the replicated log, and sees
// to it that each of these is done by one node at a time:
//
//   - targets are spread over the live nodes by rendezvous hashing of their URLs; every node works that out for
//     itself from gossip, and nothing is agreed on;
//   - what is committed is sent to remote stores by the leader, from a replicated position on;
//   - rule groups and notifications run on the leader, and their state is in replicated series.
//
// It knows nothing of Raft: what it needs of the cluster is in the interface Cluster.
package monitor
