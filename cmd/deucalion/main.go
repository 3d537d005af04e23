// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Command deucalion is one node of a Deucalion cluster: a Prometheus server whose samples are replicated through Raft.
//
// This package only reads flags and the configuration file, puts the parts together and takes them down in order. A
// node without any cluster flag is a cluster of one and serves at once.
package main

import (
	"context"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}
