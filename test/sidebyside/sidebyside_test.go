// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package sidebyside_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/harness"
	"github.com/deucaliondb/deucalion/test/local"
)

func TestMain(m *testing.M) { harness.Main(m) }

// buildStock builds a stock Prometheus of the same release from the module test/stock.
func buildStock(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("DEUCALION_STOCK_BIN"); bin != "" {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "prometheus")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-tags", "remove_all_sd", "-o", bin,
		"github.com/prometheus/prometheus/cmd/prometheus")
	cmd.Dir = filepath.Join("..", "stock")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return bin
}

// longest bounds one comparison.
const longest = 20 * time.Second

var errDiffers = errors.New("answers differ")

func TestSideBySide(t *testing.T) {
	length := 40 * time.Second
	if s := os.Getenv("DEUCALION_SIDEBYSIDE_TIME"); s != "" {
		var err error
		length, err = time.ParseDuration(s)
		require.NoError(t, err, "DEUCALION_SIDEBYSIDE_TIME")
	}
	bin := buildStock(t) // may take minutes
	targets := startExporters(t)
	file := writeConfig(t, targets)
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	dir := filepath.Dir(file)
	stock := harness.Stock(t, local.StockOptions{
		Bin: bin, Dir: dir, Data: filepath.Join(t.TempDir(), "data"), Config: string(text),
		Flags: []string{"--enable-feature=exemplar-storage,search-api", "--web.enable-admin-api", "--web.enable-remote-write-receiver"},
	})
	c := harness.New(t, "--config.file="+file, "--enable-feature=search-api")
	s := &pair{t: t, stock: stock.Client(), nodes: harness.Clients(t, c.Nodes)}
	t.Cleanup(s.stock.Close)

	s.compareFlags()
	end := time.Now().Add(length)
	s.await("a series that ends", s.all(`count(short_lived) == 2`))
	targets.ended.Store(true)
	s.await("series of both", s.compareSeries)
	s.await("rules", s.compareRules)
	s.await("alerts", s.compareAlerts)
	s.await("metadata", s.compareMetadata)
	s.compareShapes()
	// From now on everything is there; as long as it runs the two must go on to say the same.
	for round := 0; time.Now().Before(end); round++ {
		s.await("series of both", s.compareSeries)
		s.await("rules", s.compareRules)
		s.await("alerts", s.compareAlerts)
		s.await("values", s.compareValues)
	}
	s.compareShapes()
}

// pair asks a stock server and the nodes of a cluster.
type pair struct {
	t     *testing.T
	stock *client.Client
	nodes []*client.Client
}

// await repeats a comparison: the two are not scraped and evaluated at the same moments.
func (s *pair) await(what string, compare func(ctx context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 60*time.Second)
	defer cancel()
	var last error // says more than that the time is over
	err := local.Poll(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, longest)
		defer cancel()
		err := compare(ctx)
		if errors.Is(err, errDiffers) {
			last = err
		}
		return err
	})
	require.NoError(s.t, err, "%s: %v", what, last)
}

// same compares what a function makes of each server.
func (s *pair) same(ctx context.Context, of func(context.Context, *client.Client) (map[string]bool, error)) error {
	want, err := of(ctx, s.stock)
	if err != nil {
		return fmt.Errorf("stock: %w", err)
	}
	for i, n := range s.nodes {
		got, err := of(ctx, n)
		if err != nil {
			return fmt.Errorf("node %d: %w", i+1, err)
		}
		if missing, extra := minus(want, got), minus(got, want); len(missing)+len(extra) > 0 {
			return fmt.Errorf("%w: node %d lacks %d: %.800s; stock lacks %d: %.800s", errDiffers, i+1,
				len(missing), strings.Join(missing, "\n"), len(extra), strings.Join(extra, "\n"))
		}
	}
	return nil
}

// all tells whether an expression gives something on both.
func (s *pair) all(expr string) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, c := range append([]*client.Client{s.stock}, s.nodes...) {
			res, err := c.Query(ctx, expr, time.Now().UnixMilli())
			if err != nil {
				return err
			}
			if len(res.Series) == 0 {
				return fmt.Errorf("%w: not everyone has %s", errDiffers, expr)
			}
		}
		return nil
	}
}

func (s *pair) compareSeries(ctx context.Context) error {
	return s.same(ctx, func(ctx context.Context, c *client.Client) (map[string]bool, error) {
		var series []map[string]string
		err := c.Data(ctx, "/api/v1/series", url.Values{"match[]": {`{__name__=~".+"}`}}, &series)
		return keys(series, err)
	})
}

func keys(sets []map[string]string, err error) (map[string]bool, error) {
	out := map[string]bool{}
	for _, set := range sets {
		out[fmt.Sprint(set)] = true // fmt sorts the keys of maps
	}
	return out, err
}

// compareRules takes what is the same whenever it is asked: no times.
func (s *pair) compareRules(ctx context.Context) error {
	return s.same(ctx, func(ctx context.Context, c *client.Client) (map[string]bool, error) {
		var data struct {
			Groups []struct {
				Name     string
				Interval float64
				Limit    int
				Rules    []struct {
					Type, Name, Query, Health, State, LastError string
					Duration, KeepFiringFor                     float64
					Labels                                      map[string]string
				}
			}
		}
		err := c.Data(ctx, "/api/v1/rules", nil, &data)
		out := map[string]bool{}
		for _, g := range data.Groups {
			for i, r := range g.Rules {
				out[fmt.Sprintf("%s %v %d %d %+v", g.Name, g.Interval, g.Limit, i, r)] = true
			}
		}
		return out, err
	})
}

func (s *pair) compareAlerts(ctx context.Context) error {
	return s.same(ctx, func(ctx context.Context, c *client.Client) (map[string]bool, error) {
		var data struct {
			Alerts []struct {
				Labels, Annotations map[string]string
				State, Value        string
			}
		}
		err := c.Data(ctx, "/api/v1/alerts", nil, &data)
		out := map[string]bool{}
		for _, a := range data.Alerts {
			out[fmt.Sprintf("%v", a)] = true
		}
		return out, err
	})
}

func (s *pair) compareMetadata(ctx context.Context) error {
	return s.same(ctx, func(ctx context.Context, c *client.Client) (map[string]bool, error) {
		var data map[string][]struct{ Type, Help, Unit string }
		err := c.Data(ctx, "/api/v1/metadata", nil, &data)
		out := map[string]bool{}
		for family, all := range data {
			for _, m := range all {
				out[fmt.Sprintf("%s %+v", family, m)] = true
			}
		}
		return out, err
	})
}

// constant are expressions whose values do not depend on when a target was scraped.
var constant = []string{
	`sum by (job) (up)`, `count by (__name__) ({__name__=~"demo_.+"})`, `demo_temperature_celsius`, `demo_wait_seconds`,
	`histogram_quantile(0.9, demo_native_seconds)`, `demo_request_seconds_bucket`, `job:up:twice`, `{"with.dots"}`, `clash_total`,
	`count by (alertname, alertstate) (ALERTS)`, `scrape_samples_scraped`, `scrape_sample_limit`, `scrape_samples_post_metric_relabeling`,
	`short_lived`, `sum(demo:native) > bool -1`, `present_over_time(short_lived[1h])`,
}

func (s *pair) compareValues(ctx context.Context) error {
	at := time.Now().UnixMilli()
	for _, expr := range constant {
		err := s.same(ctx, func(ctx context.Context, c *client.Client) (map[string]bool, error) {
			res, err := c.Query(ctx, expr, at)
			if err != nil {
				return nil, err
			}
			rows := strings.Split(res.String(), "\n")
			sort.Strings(rows)
			out := map[string]bool{}
			for _, r := range rows {
				out[r] = true
			}
			return out, nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", expr, err)
		}
	}
	return nil
}

// compareShapes asks every endpoint of both for the same, and compares status, type and the form of the JSON.
func (s *pair) compareShapes() {
	s.t.Helper()
	for _, r := range requests {
		s.await(r.String(), func(ctx context.Context) error {
			want, err := r.ask(ctx, s.stock)
			if err != nil {
				return err
			}
			for i, n := range s.nodes {
				got, err := r.ask(ctx, n)
				if err != nil {
					return err
				}
				if err := r.compare(want, got); err != nil {
					return fmt.Errorf("node %d: %w", i+1, err)
				}
			}
			return nil
		})
	}
}

// request is a line of the table of what every Prometheus answers.
type request struct {
	method, path string
	// more are parts of the shape that only a cluster has, less those that only a stock server has.
	more, less []string
}

func (r request) String() string { return r.method + " " + r.path }

func (r request) ask(ctx context.Context, c *client.Client) (*client.Response, error) {
	path, form, post := r.path, http.Header{}, []byte(nil)
	if r.method == http.MethodPost {
		var query string
		path, query, _ = strings.Cut(path, "?")
		form.Set("Content-Type", "application/x-www-form-urlencoded")
		post = []byte(query)
	}
	return c.Do(ctx, r.method, path, form, post)
}

func (r request) compare(want, got *client.Response) error {
	if want.Status != got.Status {
		return fmt.Errorf("%w: status %d, stock has %d: %.300s", errDiffers, got.Status, want.Status, got.Body)
	}
	kind := func(x *client.Response) string { return x.Header.Get("Content-Type") }
	if kind(want) != kind(got) {
		return fmt.Errorf("%w: content type %q, stock has %q", errDiffers, kind(got), kind(want))
	}
	read := shape
	switch {
	case strings.HasPrefix(kind(want), "application/x-ndjson"):
		read = shapeOfLines
	case !strings.HasPrefix(kind(want), "application/json"):
		return nil
	}
	a, err := read(want.Body, r.path)
	if err != nil {
		return err
	}
	b, err := read(got.Body, r.path)
	if err != nil {
		return err
	}
	for _, k := range r.more {
		delete(b, k)
	}
	for _, k := range r.less {
		delete(a, k)
	}
	if missing, extra := minus(a, b), minus(b, a); len(missing)+len(extra) > 0 {
		return fmt.Errorf("%w: lacks %q, has beyond stock's %q", errDiffers, missing, extra)
	}
	return nil
}
