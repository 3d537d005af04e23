// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
)

// A leader whose remote store is away, and says to come back in an hour, stops in time all the same, and hands the
// leadership over.
func TestStopWithRemoteStoreAway(t *testing.T) {
	var asked atomic.Int64
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer away.Close()
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "remote_write: [{url: '%s'}]\n", away.URL), 0o644))
	c := harness.New(t, "--config.file="+file)
	cl := c.Nodes[0].Client()
	defer cl.Close()
	harness.Await(t, time.Minute, "the remote store to be asked", func(ctx context.Context) error {
		if asked.Load() > 0 {
			return nil
		}
		now := time.Now().UnixMilli()
		return errors.Join(errors.New("not yet"), cl.Write(ctx, []prompb.TimeSeries{{Labels: client.Labels("__name__", "m"), Samples: []prompb.Sample{{Timestamp: now, Value: 1}}}}))
	})
	old := harness.Leader(t, c)
	began := time.Now()
	require.NoError(t, old.Stop(), "it must take less than a minute")
	t.Logf("stopped in %s", time.Since(began).Round(time.Millisecond))
	require.NotEqual(t, old.Name, harness.Leader(t, c).Name)
	log, err := os.ReadFile(old.Log)
	require.NoError(t, err)
	require.Contains(t, string(log), "Sending to remote stores was cut off")
	require.NotContains(t, string(log), "Leadership was not handed over")
}
