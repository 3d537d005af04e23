// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package sidebyside runs a cluster and a stock Prometheus of the release that it is made from on the same
// configuration, targets and rules, and holds their series, rules, alerts and the shapes of all answers against each
// other. DEUCALION_SIDEBYSIDE_TIME says for how long both run (40s by default; "make sidebyside" has 10m).
package sidebyside
