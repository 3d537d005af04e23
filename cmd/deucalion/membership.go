// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/url"

	"github.com/alecthomas/kingpin/v2"
)

// runTransferLeader is deucalion transfer-leader: it moves the leadership.
func runTransferLeader(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := kingpin.New("deucalion transfer-leader", "Move the leadership to another node. The server must run with --web.enable-admin-api.")
	id := app.Flag("id", "Node that shall lead: a voter that is alive and has caught up. Default: the best of them.").String()
	return runCall(ctx, app, args, stdout, stderr, "moving the leadership", func(ctx context.Context, base *url.URL) error {
		form := url.Values{}
		if *id != "" {
			form.Set("id", *id)
		}
		answer, err := postForm[struct {
			Leader string `json:"leader"`
		}](ctx, base, "api/v1/admin/cluster/transfer_leader", form)
		if err == nil {
			fmt.Fprintf(stdout, "node %s leads\n", answer.Leader)
		}
		return err
	})
}

// runRemovePeer is deucalion remove-peer: it removes a dead node.
func runRemovePeer(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := kingpin.New("deucalion remove-peer", "Remove a dead node from the cluster, so that it counts for the majority no more. A node that is alive is not removed: stop it first. "+
		"It is added again when it comes back. The server must run with --web.enable-admin-api.")
	id := app.Flag("id", "Node to remove, as deucalion peers shows it.").Required().String()
	return runCall(ctx, app, args, stdout, stderr, "removing the node", func(ctx context.Context, base *url.URL) error {
		answer, err := postForm[struct {
			Index uint64 `json:"index"`
		}](ctx, base, "api/v1/admin/cluster/remove_peer", url.Values{"id": {*id}})
		if err == nil {
			fmt.Fprintf(stdout, "node %s removed at log index %d\n", *id, answer.Index)
		}
		return err
	})
}
