// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/alecthomas/kingpin/v2"

	"github.com/deucaliondb/deucalion/cluster"
)

// clusterAnswer is the data of /api/v1/cluster.
type clusterAnswer struct {
	Leader    string               `json:"leader"`
	ClusterID string               `json:"cluster_id"`
	Nodes     []cluster.NodeStatus `json:"nodes"`
}

// runPeers is deucalion peers: it lists the nodes of a cluster.
func runPeers(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	app := kingpin.New("deucalion peers", "List the nodes of a cluster, as one of them sees them. There need not be a leader.")
	return runCall(ctx, app, args, stdout, stderr, "listing the nodes", func(ctx context.Context, base *url.URL) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("api/v1/cluster").String(), nil)
		if err != nil {
			return err
		}
		answer, err := send[clusterAnswer](req)
		if err == nil {
			printPeers(stdout, answer)
		}
		return err
	})
}

func printPeers(w io.Writer, a *clusterAnswer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NODE\tROLE\tVOTER\tALIVE\tRAFT\tGOSSIP\tHTTP\tAPPLIED\tLAG\tNOTES")
	for _, n := range a.Nodes {
		applied, lag := fmt.Sprint(n.AppliedIndex), fmt.Sprint(n.Lag)
		if n.Role == cluster.RoleUnreachable {
			applied, lag = "-", "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%t\t%t\t%s\t%s\t%s\t%s\t%s\t%s\n", n.ID, n.Role, n.Voter, n.Alive, orDash(n.RaftAddress), orDash(n.GossipAddress),
			orDash(n.HTTPAddress), applied, lag, orDash(peerNotes(n)))
	}
	_ = t.Flush() // stdout is gone if this fails
	fmt.Fprintf(w, "leader %s, cluster %s\n", cmp.Or(a.Leader, "unknown"), cmp.Or(a.ClusterID, "unknown"))
}

func orDash(s string) string { return cmp.Or(s, "-") }

// peerNotes tells what is not as it should be.
func peerNotes(n cluster.NodeStatus) string {
	var notes []string
	add := func(what, why string) {
		if why != "" {
			notes = append(notes, what+why)
		}
	}
	add("no vote: ", n.Recovering)
	add("disk ", n.Disk)
	add("damaged: ", n.Damaged)
	add("", n.Err)
	if n.CatchUp != nil {
		notes = append(notes, "fetching a snapshot")
	}
	return strings.ReplaceAll(strings.Join(notes, "; "), "\n", " ")
}
