// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package kill_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

const (
	pauses       = 5
	pendingReads = 60
)

var errAnswer = errors.New("unexpected answer")

// TestPausedLeader stops the leader's process, as a hypervisor may, until others lead and have acknowledged a write.
// Linearizable reads that wait in its sockets when it wakes up, and still takes itself for the leader, must have that
// write or fail.
func TestPausedLeader(t *testing.T) {
	c := harness.New(t)
	answered := 0
	for i := range pauses {
		old := harness.Leader(t, c)
		write(t, c.Nodes, 2*i)
		warm(t, old)
		require.NoError(t, old.Pause())
		write(t, c.Followers(old), 2*i+1)
		answers := readAtOnce(t, old, 2*i+1)
		for _, a := range answers {
			if a.err == nil {
				answered++
				require.Equal(t, fmt.Sprint(2*i+1), a.value, "linearizable read on %s, paused as the leader", old.Name)
			}
		}
		harness.Start(t, c)
	}
	t.Logf("%d of %d linearizable reads were answered", answered, pauses*pendingReads)
	require.NotZero(t, answered)
}

// write sends value i through any of nodes until it is acknowledged.
func write(t *testing.T, nodes []*local.Server, i int) {
	t.Helper()
	at := time.Now().UnixMilli()
	harness.Await(t, 30*time.Second, "a write", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		cl := nodes[i%len(nodes)].Client()
		defer cl.Close()
		return cl.Write(ctx, []prompb.TimeSeries{{
			Labels: client.Labels("__name__", "paused"), Samples: []prompb.Sample{{Value: float64(i), Timestamp: at}},
		}})
	})
}

// warm makes the code of a read run once: the race with Raft's timers is lost by whoever is slow.
func warm(t *testing.T, n *local.Server) {
	t.Helper()
	cl := n.Client().At(client.Linearizable)
	defer cl.Close()
	_, err := latest(t.Context(), cl)
	require.NoError(t, err)
}

type answer struct {
	value string
	err   error
}

// readAtOnce sends reads to a paused node, wakes it up when they are on their way, and returns what it answers.
func readAtOnce(t *testing.T, n *local.Server, want int) []answer {
	t.Helper()
	var wg sync.WaitGroup
	answers := make([]answer, pendingReads)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for i := range answers {
		wg.Go(func() {
			cl := n.Client().At(client.Linearizable)
			defer cl.Close()
			answers[i].value, answers[i].err = latest(ctx, cl)
		})
	}
	time.Sleep(200 * time.Millisecond) // nothing can tell that a request is in the socket of a process that is stopped
	require.NoError(t, n.Resume(), "after write %d", want)
	wg.Wait()
	return answers
}

// latest is the value that an instant query finds.
func latest(ctx context.Context, cl *client.Client) (string, error) {
	res, err := cl.Query(ctx, "paused", time.Now().Add(time.Second).UnixMilli())
	if err != nil {
		return "", err
	}
	if len(res.Series) != 1 || len(res.Series[0].Points) != 1 {
		return "", fmt.Errorf("%w: %s", errAnswer, res)
	}
	return res.Series[0].Points[0].Value, nil
}
