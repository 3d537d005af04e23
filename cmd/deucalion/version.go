// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/prometheus/common/version"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

const (
	// ownVersion is what a build without -ldflags says it is.
	ownVersion = "0.1.0-dev"
	// prometheusVersion is the Prometheus release whose API this one is. Grafana, Thanos and others look at the version
	// in buildinfo to see what they may ask for; with ours alone they would take this for a Prometheus of 2012.
	prometheusVersion = "3.15.0"
)

// setVersion fills in the version that a release build sets with -ldflags "-X github.com/prometheus/common/version.Version=...".
func setVersion() {
	if version.Version == "" {
		version.Version = ownVersion
	}
}

// buildInfo is what /api/v1/status/buildinfo shows. Our version is semver build metadata behind Prometheus's, which
// comparisons ignore.
func buildInfo() *v1.PrometheusVersion {
	return &v1.PrometheusVersion{
		Version:   prometheusVersion + "+deucalion." + version.Version,
		Revision:  version.GetRevision(),
		Branch:    version.Branch,
		BuildUser: version.BuildUser,
		BuildDate: version.BuildDate,
		GoVersion: version.GoVersion,
	}
}
