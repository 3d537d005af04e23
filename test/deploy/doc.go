// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package deploy holds the dashboard and the alerts in deploy/ against what three real
// nodes under load tell at /metrics: every name and label in their expressions is
// there, every panel shows something, and no alert fires on a healthy cluster. It reads
// the Kubernetes manifests as an API server does, and the systemd unit as systemd does,
// and does what the guide in docs/ says about three machines, each in a namespace.
package deploy
