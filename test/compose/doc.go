// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package compose tests what a user starts from deploy/compose: the file itself, as
// Compose reads it, the load balancer before three real nodes which die, hang, are cut off
// and are upgraded under load, and, with DEUCALION_COMPOSE=1, the nodes in containers of a
// Docker Engine.
package compose
