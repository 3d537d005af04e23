// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package helm is a module of its own that renders the chart in deploy/helm as Helm does,
// and holds it against deploy/kubernetes. It keeps what only Helm needs out of Deucalion's
// module.
package helm
