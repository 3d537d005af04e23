// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/alecthomas/kingpin/v2"

	"github.com/deucaliondb/deucalion/cluster"
)

// Exit codes of deucalion digest, as those of diff.
const (
	exitEqual     = 0
	exitDifferent = 1
	exitTrouble   = 2
)

// runDigest is deucalion digest: it asks a node to have all nodes compare their data, and shows what each has found.
func runDigest(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	var code *int
	app := kingpin.New("deucalion digest", "Compare hashes of what all nodes of a cluster hold at one log index. The server must run with --web.enable-admin-api. "+
		"Exits with 0 if the data are equal, 1 if nodes differ, 2 if they could not be compared.").UsageWriter(stdout).ErrorWriter(stderr)
	app.HelpFlag.Short('h')
	app.Terminate(func(c int) { code = &c })
	base := app.Flag("url", "Address of any node.").Default("http://localhost:9090").URL()
	start := app.Flag("start", "Compare samples from this time on (RFC 3339 or Unix seconds). Default: from the first.").String()
	end := app.Flag("end", "Compare samples up to this time (RFC 3339 or Unix seconds). Default: to the last.").String()
	if _, err := app.Parse(args); err != nil {
		fmt.Fprintf(stderr, "Error parsing command line arguments: %s\n", err)
		return exitTrouble
	}
	if code != nil {
		return *code
	}
	report, err := fetchDigest(ctx, *base, *start, *end)
	if err != nil {
		fmt.Fprintf(stderr, "Error comparing the data: %s\n", err)
		return exitTrouble
	}
	printDigest(stdout, report)
	switch report.Result {
	case cluster.DigestEqual:
		return exitEqual
	case cluster.DigestMismatch:
		return exitDifferent
	default:
		return exitTrouble
	}
}

func fetchDigest(ctx context.Context, base *url.URL, start, end string) (*cluster.DigestReport, error) {
	form := url.Values{}
	for name, value := range map[string]string{"start": start, "end": end} {
		if value != "" {
			form.Set(name, value)
		}
	}
	return postForm[cluster.DigestReport](ctx, base, "api/v1/admin/cluster/digest", form)
}

func printDigest(w io.Writer, r *cluster.DigestReport) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	var reasons []string // of those that say nothing of their data
	fmt.Fprintln(t, "NODE\tVERDICT\tSERIES\tSAMPLES\tHASH\tTABLES\tSECONDS")
	for _, n := range r.Nodes {
		verdict := "ok"
		switch {
		case n.Differs:
			verdict = "DIFFERS"
		case n.Result == nil:
			verdict, reasons = "MISSING", append(reasons, n.ID+": "+n.Missing)
		case n.Result.Err != "":
			verdict, reasons = "ERROR", append(reasons, n.ID+": "+n.Result.Err)
		}
		if n.Result == nil || len(n.Result.Ranges) == 0 {
			fmt.Fprintf(t, "%s\t%s\t\t\t\t\t\n", n.ID, verdict)
			continue
		}
		for _, x := range n.Result.Ranges {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%.3f\n", n.ID, verdict, x.Series, x.Samples, x.Hash, n.Result.StateHash, n.Result.Seconds)
		}
	}
	_ = t.Flush() // stdout is gone if this fails
	for _, reason := range reasons {
		fmt.Fprintln(w, reason)
	}
	fmt.Fprintf(w, "%s at log index %d", r.Result, r.Index)
	if len(r.Differing) > 0 {
		fmt.Fprintf(w, ": %s", strings.Join(r.Differing, ", "))
	}
	fmt.Fprintln(w)
}
