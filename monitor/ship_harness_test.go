// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

const shipPatience = 60 * time.Second

// sink is a remote store that remembers what it got.
type sink struct {
	*httptest.Server

	mu       sync.Mutex // protects the following
	got      map[string]int
	metadata map[string]string
	status   int // instead of taking anything, if not 0
	tries    int
	ordered  map[string]int64 // newest timestamps, if not nil: a request with an older sample is refused as a whole
}

func newSink(t *testing.T) *sink {
	s := &sink{got: map[string]int{}, metadata: map[string]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP takes both versions of the protocol.
func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	status := s.status
	s.tries++
	s.mu.Unlock()
	if status != 0 {
		http.Error(w, "told so", status)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.Contains(r.Header.Get("Content-Type"), "io.prometheus.write.v2") {
		s.takeV2(w, body)
		return
	}
	req, err := remote.DecodeWriteRequest(strings.NewReader(string(body)))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b := labels.NewScratchBuilder(0)
	if s.ordered != nil {
		next := maps.Clone(s.ordered)
		for _, ts := range req.Timeseries {
			ls := ts.ToLabels(&b, nil).String()
			for _, x := range ts.Samples {
				if x.Timestamp < next[ls] {
					http.Error(w, "out of order sample", http.StatusBadRequest)
					return
				}
				next[ls] = x.Timestamp
			}
		}
		s.ordered = next
	}
	for _, ts := range req.Timeseries {
		ls := ts.ToLabels(&b, nil).String()
		for _, x := range ts.Samples {
			s.got[fmt.Sprintf("%s %d %v", ls, x.Timestamp, x.Value)]++
		}
		for _, x := range ts.Histograms {
			s.got[fmt.Sprintf("%s %d histogram %v", ls, x.Timestamp, x.Sum)]++
		}
		for _, x := range ts.Exemplars {
			s.got[fmt.Sprintf("%s %d exemplar %v", ls, x.Timestamp, x.Value)]++
		}
	}
	for _, m := range req.Metadata {
		s.metadata[m.MetricFamilyName] = m.Help
	}
}

func (s *sink) takeV2(w http.ResponseWriter, body []byte) {
	req, err := remote.DecodeWriteV2Request(strings.NewReader(string(body)))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b := labels.NewScratchBuilder(0)
	stats := remote.WriteResponseStats{Confirmed: true}
	for _, ts := range req.Timeseries {
		ls, err := ts.ToLabels(&b, req.Symbols)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, x := range ts.Samples {
			s.got[fmt.Sprintf("%s %d %v", ls, x.Timestamp, x.Value)]++
		}
		for _, x := range ts.Histograms {
			s.got[fmt.Sprintf("%s %d histogram %v", ls, x.Timestamp, x.Sum)]++
		}
		for _, x := range ts.Exemplars {
			s.got[fmt.Sprintf("%s %d exemplar %v", ls, x.Timestamp, x.Value)]++
		}
		stats.Samples, stats.Histograms, stats.Exemplars = stats.Samples+len(ts.Samples), stats.Histograms+len(ts.Histograms), stats.Exemplars+len(ts.Exemplars)
		if ts.Metadata.Type != writev2.Metadata_METRIC_TYPE_UNSPECIFIED {
			s.metadata[ls.Get("__name__")] = req.Symbols[ts.Metadata.HelpRef]
		}
	}
	stats.SetHeaders(w)
	w.WriteHeader(http.StatusNoContent)
}

func (s *sink) set(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *sink) seen() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.got)
}

func (s *sink) attempts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tries
}

// repeats counts what came more than once.
func (s *sink) repeats() (n int) {
	for _, times := range s.seen() {
		n += times - 1
	}
	return n
}

// await waits until all of want has come.
func (s *sink) await(t *testing.T, want ...string) {
	t.Helper()
	var missing []string
	ok := func() bool {
		got := s.seen()
		missing = missing[:0]
		for _, x := range want {
			if got[x] == 0 {
				missing = append(missing, x)
			}
		}
		return len(missing) == 0
	}
	end := time.Now().Add(shipPatience)
	for !ok() {
		if time.Now().After(end) {
			require.Empty(t, missing[:min(5, len(missing))], "%d of %d are missing", len(missing), len(want))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// conf loads a configuration file with one remote_write section for the sink, with more lines of it.
func (s *sink) conf(t *testing.T, more ...string) *config.Config {
	t.Helper()
	return loadShip(t, fmt.Sprintf("remote_write:\n- url: %s/\n  queue_config: {batch_send_deadline: 50ms, min_backoff: 10ms, max_backoff: 100ms}\n  %s\n",
		s.URL, strings.Join(more, "\n  ")))
}

func loadShip(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Load(text, promslog.NewNopLogger())
	require.NoError(t, err, text)
	return c
}

func shipLogger(t *testing.T) *slog.Logger {
	if os.Getenv("SHIP_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("test", t.Name())
}

// shipBatch commits what fill adds.
func shipBatch(ctx context.Context, f *fsm.FSM, p fsm.Proposer, fill func(b *fsm.Batch)) (fsm.Outcome, error) {
	b := f.NewBatch()
	defer b.Release()
	fill(b)
	return b.Commit(ctx, p)
}

// soloLog is a log of one node without Raft, which leads when it is told to.
type soloLog struct {
	fsm *fsm.FSM

	mu      sync.Mutex // protects the following
	entries [][]byte   // entry i is of index i+1
	first   uint64     // below it there is nothing left
	duty    func(context.Context)
}

func (l *soloLog) RunDuty(fn func(context.Context)) { l.duty = fn }

func (l *soloLog) Propose(_ context.Context, entry []byte) (fsm.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entry)
	index := uint64(len(l.entries))
	r := l.fsm.Apply(index, 1, entry)
	l.fsm.Publish(index, 1)
	return r, nil
}

func (l *soloLog) ReadIndex(context.Context) (uint64, error) {
	index, _ := l.fsm.Applied()
	return index, nil
}

func (l *soloLog) AppliedEntry(index uint64) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index < l.first {
		return nil, cluster.ErrCompacted
	}
	return l.entries[index-1], nil
}

func (l *soloLog) FirstLogIndex() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.first, 1)
}

// solo is a Shipper over a soloLog.
type solo struct {
	*Shipper
	t        *testing.T
	log      *soloLog
	registry *prometheus.Registry
	resign   func()
}

func newSolo(t *testing.T, c *config.Config) *solo {
	t.Helper()
	f, err := fsm.Open(fsm.Options{Dir: t.TempDir(), Storage: storage.Options{Manual: true}}, "")
	require.NoError(t, err)
	s := &solo{t: t, log: &soloLog{fsm: f}, registry: prometheus.NewRegistry(), resign: func() {}}
	s.Shipper, err = NewShipper(ShipperOptions{
		Log: s.log, FSM: f, Dir: t.TempDir(), FlushDeadline: 10 * time.Second, Logger: shipLogger(t), Registerer: s.registry,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Stop(context.Background()))
		s.resign()
		require.NoError(t, f.Close())
	})
	require.NoError(t, s.ApplyConfig(c))
	s.lead()
	return s
}

// lead begins a term, which resign ends.
func (s *solo) lead() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.log.duty(ctx)
	}()
	s.resign = func() {
		cancel()
		<-done
	}
}

// add commits a float and returns what the sink is to get.
func (s *solo) add(name string, t int64, v float64) string {
	s.t.Helper()
	ls := labels.FromStrings("__name__", name)
	_, err := shipBatch(s.t.Context(), s.log.fsm, s.log, func(b *fsm.Batch) {
		b.Series(nil, ls)
		b.Float(t, v)
	})
	require.NoError(s.t, err)
	return fmt.Sprintf("%s %d %v", ls, t, v)
}

// ready waits until the leader knows where every remote store begins.
func (s *solo) ready(n int) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return len(s.log.fsm.Shipped()) == n }, shipPatience, 5*time.Millisecond)
}

func (s *solo) metric(name string) (sum float64) { return gathered(s.t, s.registry, name) }

func gathered(t *testing.T, r prometheus.Gatherer, name string) (sum float64) {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
