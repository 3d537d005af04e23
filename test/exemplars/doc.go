// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package exemplars tests on three real nodes that exemplars and metadata, by both
// versions of remote write, are part of the replicated state: each node answers with
// those that any node was sent, also after restarts, and also one that was given them
// by a snapshot.
package exemplars
