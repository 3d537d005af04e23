// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package alerts proves with real nodes and Debian's Alertmanager that alerts survive their leaders: each is notified
// once, whoever is killed or frozen meanwhile.
package alerts
