// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// The files go when no log has the entry any more.
func TestImportTidied(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t, func(c *cluster.Config) { c.TrailingLogBytes, c.LogSegmentBytes = 1, 64<<10 })
	waitLevel(t, nodes)
	leader, _ := leaderOf(t, nodes)
	r := leader.take(blockOf(t, 0, 30))
	for _, n := range nodes {
		n.TidyImports()
		require.Len(t, n.importDirs(), 1, n.ID())
	}
	leader.age()
	for _, n := range nodes {
		n.eventually("a shorter log", func() bool {
			_ = n.Snapshot(t.Context())
			return n.FirstLogIndex() > r.Index
		})
		n.TidyImports()
		require.Empty(t, n.importDirs(), n.ID())
		require.Equal(t, 30, n.count())
	}
	leader.crash()
	leader.start()
	leader.waitCount(30)
}

// slowReader is a member that reads nothing of an answer until it is let go.
type slowReader struct {
	*httptest.ResponseRecorder
	begun, letGo chan struct{}
}

func (s *slowReader) SetWriteDeadline(time.Time) error { return nil }

func (s *slowReader) Write(b []byte) (int, error) {
	if s.Body.Len() == 0 {
		close(s.begun)
		<-s.letGo
	}
	return s.ResponseRecorder.Write(b)
}

// The files stay while another member fetches them, and for as long after each as it may take to ask for the next.
func TestImportInUseIsNotTidied(t *testing.T) {
	t.Parallel()
	n := startNode(t, cluster.Config{NodeID: "n0", TrailingLogBytes: 1, LogSegmentBytes: 64 << 10})
	n.waitReady()
	waitLevel(t, []*testNode{n})
	r := n.take(blockOf(t, 0, 30))
	require.Len(t, n.importDirs(), 1)
	get := &url.URL{RawQuery: url.Values{
		"id": {filepath.Base(n.importDirs()[0])}, "path": {r.Blocks[0].ULID + "/index"}, "offset": {"0"},
	}.Encode()}
	reader := &slowReader{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.ServeImport(reader, (&http.Request{URL: get}).WithContext(t.Context()))
	}()
	select {
	case <-reader.begun:
	case <-done:
		t.Fatal(reader.Code, reader.Body)
	}
	n.age()
	n.eventually("a shorter log", func() bool {
		_ = n.Snapshot(t.Context())
		return n.FirstLogIndex() > r.Index
	})
	n.TidyImports()
	require.Len(t, n.importDirs(), 1, "one is being fetched")
	close(reader.letGo)
	<-done
	require.Equal(t, http.StatusOK, reader.Code)
	require.NotZero(t, reader.Body.Len())
	n.TidyImportsInUse()
	require.Len(t, n.importDirs(), 1, "the next one may be wanted")
	n.TidyImports()
	require.Empty(t, n.importDirs())
}
