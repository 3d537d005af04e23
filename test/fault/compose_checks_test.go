// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault_test

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/fault"
	"github.com/deucaliondb/deucalion/test/harness"
)

func (r *composeRun) awaitReady(t *testing.T, n *fault.Node) {
	t.Helper()
	cl := n.Client()
	defer cl.Close()
	harness.Await(t, time.Minute, n.Name+" to be ready", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := cl.Get(ctx, "/-/ready", nil)
		return err
	})
}

// awaitBalancer waits until HAProxy holds a node for UP or DOWN.
func (r *composeRun) awaitBalancer(t *testing.T, node int, want string) {
	t.Helper()
	cl := client.New(strings.Replace(r.system.Balancer, ":9090", ":8404", 1))
	defer cl.Close()
	harness.Await(t, time.Minute, fmt.Sprintf("node%d to be %s", node+1, want), func(ctx context.Context) error {
		resp, err := cl.Get(ctx, "/stats;csv", nil)
		if err != nil {
			return err
		}
		rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(string(resp.Body), "# "))).ReadAll()
		if err != nil {
			return err
		}
		column := slices.Index(rows[0], "status")
		for _, row := range rows[1:] {
			if row[0] == "nodes" && row[1] == fmt.Sprintf("node%d", node+1) && row[column] == want {
				return nil
			}
		}
		return fmt.Errorf("not so in %s", resp.Body)
	})
}

// requireLeftOut waits until HAProxy has left a node out, which is within 2 s of the node's trouble. That has begun when the
// engine says that it is done, whose own time does not count.
func (r *composeRun) requireLeftOut(t *testing.T, node int) {
	t.Helper()
	begin := time.Now()
	r.awaitBalancer(t, node, "DOWN")
	took := time.Since(begin)
	t.Logf("left out after %s", took.Round(time.Millisecond))
	require.LessOrEqual(t, took, 2*time.Second)
}

// send writes a series through the balancer.
func (r *composeRun) send(t *testing.T) {
	t.Helper()
	name := fmt.Sprint(len(r.sent))
	cl := client.New(r.system.Balancer)
	defer cl.Close()
	harness.Await(t, time.Minute, "a write", func(ctx context.Context) error {
		return cl.Write(ctx, []prompb.TimeSeries{{
			Labels:  client.Labels("__name__", "sent", "number", name),
			Samples: []prompb.Sample{{Timestamp: time.Now().UnixMilli(), Value: 1}},
		}})
	})
	r.sent = append(r.sent, name)
}

// awaitEverywhere waits until each node, asked itself, has all that was sent.
func (r *composeRun) awaitEverywhere(t *testing.T) {
	t.Helper()
	want := slices.Sorted(slices.Values(r.sent))
	for _, n := range r.system.Nodes {
		cl := n.Client().At(client.Linearizable)
		defer cl.Close()
		var got []string
		harness.Await(t, time.Minute, "a read of "+n.Name, func(ctx context.Context) error {
			return cl.Data(ctx, "/api/v1/label/number/values", nil, &got)
		})
		require.Equal(t, want, got, n.Name)
	}
}

func requireResult(ctx context.Context, cl *client.Client, query string) error {
	var data struct{ Result []any }
	if err := cl.Data(ctx, "/api/v1/query", url.Values{"query": {query}}, &data); err != nil {
		return err
	}
	if len(data.Result) == 0 {
		return errors.New("no result")
	}
	return nil
}

func get(ctx context.Context, url string) error {
	cl := client.New(url)
	defer cl.Close()
	_, err := cl.Get(ctx, "", nil)
	return err
}

func dial(t *testing.T, addr string) error {
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(t.Context(), "tcp", addr+":9090")
	if err != nil {
		return err
	}
	return conn.Close()
}

// reach connects from one node to the port of another for its peers, within some seconds.
func reach(t *testing.T, from, to *fault.Node, seconds int) error {
	enter, err := from.Enter()
	require.NoError(t, err)
	return command(t, enter, "timeout", fmt.Sprint(seconds), "bash", "-c", "exec 3<>/dev/tcp/"+to.Addrs[0]+"/9190")
}

func command(t *testing.T, prefix []string, args ...string) error {
	all := append(slices.Clone(prefix), args...)
	out, err := exec.CommandContext(t.Context(), all[0], all[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%v: %w: %s", all, err, out)
	}
	return err
}
