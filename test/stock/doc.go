// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package stock is a module of its own that builds a Prometheus server to compare with, of the release that Deucalion
// is made from. It keeps what only that server needs out of Deucalion's module.
package stock

import _ "github.com/prometheus/prometheus/cmd/prometheus"
