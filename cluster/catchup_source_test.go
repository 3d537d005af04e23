// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
)

// testSource serves the snapshots of s.
func testSource(t *testing.T, s *SnapshotStore, rate int64) (*source, func(id, path string, offset any) (int, string)) {
	src := newSource(&Node{
		cfg: Config{SnapshotMaxRate: rate}, snapshots: s, logger: discard, metrics: newMetrics(prometheus.NewRegistry()),
	})
	server := httptest.NewServer(http.HandlerFunc(src.serve))
	t.Cleanup(server.Close)
	client := server.Client()
	t.Cleanup(client.CloseIdleConnections)
	return src, func(id, path string, offset any) (int, string) {
		q := url.Values{"id": {id}, "path": {path}, "offset": {fmt.Sprint(offset)}}
		resp, err := client.Get(server.URL + "?" + q.Encode())
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
}

func TestSourceServesWhatTheManifestLists(t *testing.T) {
	s := testStore(t, t.TempDir())
	id := local(t, s, 5)
	require.NoError(t, os.WriteFile(filepath.Join(s.dataDir(id), "secret"), []byte("x"), 0o644))
	_, get := testSource(t, s, 0)

	code, body := get(id, "state", 0)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "the state", body)
	code, body = get(id, "state", 4)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "state", body)
	code, body = get(id, "state", 9)
	require.Equal(t, http.StatusOK, code)
	require.Empty(t, body)
	code, body = get(id, "blocks/"+testBlock.String()+"/chunks/000001", 100_000)
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, testFiles["chunks/000001"][100_000:], body)

	code, _ = get(id, "state", 10)
	require.Equal(t, http.StatusRequestedRangeNotSatisfiable, code)
	for _, offset := range []any{-1, "", "x"} {
		code, _ = get(id, "state", offset)
		require.Equal(t, http.StatusBadRequest, code)
	}
	for _, path := range []string{
		"", ".", "/", "secret", fsm.ManifestName, "../meta.json", "state/../secret", "./state", "/etc/passwd",
		"blocks", "blocks/" + testBlock.String(), "blocks/" + testBlock.String() + "/../../secret",
	} {
		code, _ = get(id, path, 0)
		require.Equal(t, http.StatusNotFound, code, path)
	}
	for _, snapshot := range []string{"", "..", "2-6-1", "../" + filepath.Base(s.dir) + "/" + id} {
		code, _ = get(snapshot, "state", 0)
		require.Equal(t, http.StatusNotFound, code, snapshot)
	}
}

func TestSourceLeaseKeepsTheSnapshot(t *testing.T) {
	s := testStore(t, t.TempDir())
	id := local(t, s, 5)
	src, get := testSource(t, s, 0)
	require.False(t, src.leased(id))
	code, _ := get(id, "state", 0)
	require.Equal(t, http.StatusOK, code)
	require.True(t, src.leased(id))
	for i := uint64(6); i < 10; i++ {
		local(t, s, i)
	}
	src.drop(leaseTime)
	code, _ = get(id, "state", 0)
	require.Equal(t, http.StatusOK, code, "it is no longer in the list, but still there")

	l, err := src.acquire(id, "")
	require.NoError(t, err)
	src.drop(0)
	require.True(t, src.leased(id), "a transfer is under way")
	src.release(l, 1)
	require.Eventually(t, func() bool { // an answer is here before its transfer is over
		src.drop(0)
		return !src.leased(id)
	}, 30*time.Second, time.Millisecond)
	require.NoDirExists(t, filepath.Join(s.dir, id))
	code, _ = get(id, "state", 0)
	require.Equal(t, http.StatusNotFound, code)

	src.close()
	_, err = src.acquire(s.newestID(), "")
	require.ErrorIs(t, err, ErrStopped)
}

// All transfers together keep to the rate.
func TestSourceRate(t *testing.T) {
	t.Parallel()
	const rate = 400_000
	s := testStore(t, t.TempDir())
	id := local(t, s, 5)
	src, get := testSource(t, s, rate)
	done := make(chan int, 2)
	start := time.Now()
	for range 2 {
		go func() {
			_, body := get(id, "blocks/"+testBlock.String()+"/chunks/000001", 0)
			done <- len(body)
		}()
	}
	total := <-done + <-done
	require.Equal(t, 600_000, total)
	require.GreaterOrEqual(t, time.Since(start), time.Duration(float64(total-src.chunk)/rate*float64(time.Second)))
}
