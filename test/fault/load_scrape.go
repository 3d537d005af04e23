// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"

	"github.com/deucaliondb/deucalion/test/client"
)

const (
	scrapeJob    = "fault"
	scrapeMetric = "fault_scrapes_total"
	// allTime, in ms, is later than any sample.
	allTime = 1 << 50
	// scrapeDrift is how far the timestamp of a scrape may be from the moment when the target was asked. A node whose clock is
	// off by over 10 s must not store what it scrapes, and one that is frozen may ask some seconds after it took the time.
	scrapeDrift = 30 * time.Second
)

// Reader reads back what a server stores.
type Reader struct {
	// Name stands in findings.
	Name string
	// Read fetches the samples from mint to maxt (ms, inclusive) of the series that match. It must see all that was acknowledged.
	Read func(ctx context.Context, mint, maxt int64, matchers ...*prompb.LabelMatcher) (client.Data, error)
}

// Scrapes is a number of scrape targets. Each counts how often it was scraped, so that every scrape of it has a value of its
// own: what is stored tells which scrapes are, and whether they stand at the right time. Two nodes may scrape a target at
// once for a moment, which makes two values.
type Scrapes struct {
	// Settle is how long nodes may differ after the last scrape, for one may still be on its way into the log.
	Settle time.Duration

	web     *webServer
	stopped atomic.Bool
	summary ScrapesSummary // of Check

	mu     sync.Mutex // protects the following
	served [][]int64  // by target, when the value 1 was served, in ms, the value 2, and so on
}

// ScrapesSummary is what a report says of the scrapes of a run.
type ScrapesSummary struct {
	Targets int
	Served  int // scrapes that were answered
	// Stored of these are, on the node with the fewest.
	Stored int
	// Gap is the longest time between two samples of a target, on the node where it is longest.
	Gap time.Duration
}

// NewScrapes listens on an IP address with so many targets.
func NewScrapes(listen string, targets int) (*Scrapes, error) {
	s := &Scrapes{Settle: 30 * time.Second, served: make([][]int64, targets)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{target}", s.serve)
	var err error
	s.web, err = serveWeb(listen, mux)
	return s, err
}

// Close stops listening.
func (s *Scrapes) Close() error { return s.web.close() }

// Stop makes all later scrapes fail.
func (s *Scrapes) Stop() { s.stopped.Store(true) }

func (s *Scrapes) serve(w http.ResponseWriter, r *http.Request) {
	i, err := strconv.Atoi(r.PathValue("target"))
	if err != nil || i < 0 || i >= len(s.served) {
		http.NotFound(w, r)
		return
	}
	if s.stopped.Load() {
		http.Error(w, "no more", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintf(w, "# TYPE %s counter\n%[1]s %d\n", scrapeMetric, s.count(i))
}

func (s *Scrapes) count(target int) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served[target] = append(s.served[target], time.Now().UnixMilli())
	return len(s.served[target])
}

func (s *Scrapes) servedBy(target int) []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.served[target])
}

// ScrapeConfig is the YAML of the job, an item of scrape_configs.
func (s *Scrapes) ScrapeConfig() string {
	var b strings.Builder
	fmt.Fprintf(&b, "- job_name: %s\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  static_configs:\n", scrapeJob)
	for i := range s.served {
		fmt.Fprintf(&b, "  - {targets: ['%s'], labels: {target: '%d', __metrics_path__: '/%[2]d'}}\n", s.web.address(), i)
	}
	return b.String()
}

// Check does Stop, reads what every server stores, and returns the faults, at most limit and a line that counts the rest. With
// alike, all servers must hold the same in the end.
func (s *Scrapes) Check(ctx context.Context, readers []Reader, alike bool, limit int) ([]string, error) {
	s.Stop()
	deadline := time.Now().Add(s.Settle)
	for {
		data := make([]client.Data, len(readers))
		out := lineList{limit: limit}
		for i, r := range readers {
			var err error
			if data[i], err = readScrapes(ctx, r); err != nil {
				return nil, err
			}
			for _, line := range client.Diff(data[0], data[i], limit) {
				if alike {
					out.addf("%s and %s differ: %s", readers[0].Name, r.Name, line)
				}
			}
		}
		if out.found > 0 && time.Now().Before(deadline) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(time.Second):
			}
			continue
		}
		for i, r := range readers {
			s.judge(&out, r.Name, data[i])
		}
		s.summarize(data)
		return out.list(), nil
	}
}

// readScrapes leaves stale markers out.
func readScrapes(ctx context.Context, r Reader) (client.Data, error) {
	got, err := r.Read(ctx, 0, allTime, &prompb.LabelMatcher{Type: prompb.LabelMatcher_EQ, Name: "__name__", Value: scrapeMetric})
	if err != nil {
		return nil, fmt.Errorf("scrapes stored by %s: %w", r.Name, err)
	}
	data := client.Data{}
	for key, samples := range got {
		for _, x := range samples {
			if x.Bits != value.StaleNaN {
				data[key] = append(data[key], x)
			}
		}
	}
	return data, nil
}

// key is the series of a target.
func (s *Scrapes) key(target int) string {
	return client.Key([]prompb.Label{
		{Name: "__name__", Value: scrapeMetric},
		{Name: "instance", Value: s.web.address()},
		{Name: "job", Value: scrapeJob},
		{Name: "target", Value: strconv.Itoa(target)},
	})
}

func (s *Scrapes) judge(out *lineList, node string, data client.Data) {
	known := map[string]bool{}
	for i := range s.served {
		key, served := s.key(i), s.servedBy(i)
		known[key] = true
		seen := map[float64]int64{}
		for _, x := range data[key] {
			v := math.Float64frombits(x.Bits)
			if x.Hist != "" || !(v >= 1) || v != math.Trunc(v) || v > float64(len(served)) {
				out.addf("%s: target %d has never served %s", node, i, x)
				continue
			}
			if off := time.Duration(x.T-served[int(v)-1]) * time.Millisecond; off.Abs() > scrapeDrift {
				out.addf("%s: scrape %v of target %d is stored %v from when it was", node, v, i, off)
			}
			if t, twice := seen[v]; twice {
				out.addf("%s: scrape %v of target %d is stored twice, at %d and %d", node, v, i, t, x.T)
			}
			seen[v] = x.T
		}
		if len(served) > 0 && len(seen) == 0 {
			out.addf("%s: target %d was scraped and nothing is stored", node, i)
		}
	}
	for _, key := range data.Keys() {
		if !known[key] {
			out.addf("%s: series of no target: %s", node, key)
		}
	}
}

func (s *Scrapes) summarize(data []client.Data) {
	s.summary = ScrapesSummary{Targets: len(s.served)}
	for i := range s.served {
		s.summary.Served += len(s.servedBy(i))
	}
	for i, d := range data {
		if n := d.Len(); i == 0 || n < s.summary.Stored {
			s.summary.Stored = n
		}
		for _, samples := range d {
			for j := 1; j < len(samples); j++ {
				s.summary.Gap = max(s.summary.Gap, time.Duration(samples[j].T-samples[j-1].T)*time.Millisecond)
			}
		}
	}
}

// Summary counts, after Check.
func (s *Scrapes) Summary() ScrapesSummary { return s.summary }
