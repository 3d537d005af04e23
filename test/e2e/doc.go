// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e holds Deucalion against the original: Debian's own Prometheus scrapes,
// remote-writes to the nodes and answers the same queries, and the two must agree on
// every sample and every answer. The tests need Debian's packages prometheus and
// prometheus-node-exporter and the build tag e2e; "make e2e" sees to both.
package e2e
