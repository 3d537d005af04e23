// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
)

// commandsHelp is part of the help text: the commands are no part of the server's flags, so that none of its flags
// appears in theirs.
const commandsHelp = `Without a command it is a server. Commands, each with a --help of its own:
  deucalion digest            compare the data of all nodes
  deucalion healthcheck       ask a node whether it is ready
  deucalion import            import blocks of Prometheus or Thanos
  deucalion peers             list the nodes
  deucalion remove-peer       remove a dead node
  deucalion transfer-leader   move the leadership`

type commandFunc func(ctx context.Context, args []string, stdout, stderr io.Writer) int

// command finds what the first argument names, if it is not a flag of the server.
func command(name string) (commandFunc, bool) {
	switch name {
	case "digest":
		return runDigest, true
	case "healthcheck":
		return runHealthcheck, true
	case "import":
		return runImport, true
	case "peers":
		return runPeers, true
	case "remove-peer":
		return runRemovePeer, true
	case "transfer-leader":
		return runTransferLeader, true
	}
	return nil, false
}
