// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package federate serves the newest samples of chosen series in the exposition formats, as /federate of Prometheus
// does, whose handler cannot be had without its whole web server.
package federate
