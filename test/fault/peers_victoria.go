// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/prompb"

	"github.com/deucaliondb/deucalion/test/client"
)

// NewVictoriaMetrics lays out one VictoriaMetrics. It evaluates no rules, and of the configuration it takes the scrape_configs. Queries
// see the newest samples, which it hides for 30 s by default. The error wraps exec.ErrNotFound when it is not installed.
func NewVictoriaMetrics(o PeerOptions) (*Peer, error) {
	p, err := newPeer("VictoriaMetrics", o, 1, "victoria-metrics")
	if err != nil {
		return nil, err
	}
	n, err := p.node(o, 0, "victoria-metrics", func(config, data, addr string) []string {
		return []string{
			"-promscrape.config=" + config, "-promscrape.config.strictParse=false", "-storageDataPath=" + data,
			"-httpListenAddr=" + addr, "-retentionPeriod=10y", "-search.latencyOffset=0s",
		}
	})
	if err == nil {
		c := n.Client()
		p.clients = append(p.clients, c)
		p.Readers = append(p.Readers, Reader{Name: n.Name, Read: func(ctx context.Context, mint, maxt int64, matchers ...*prompb.LabelMatcher) (client.Data, error) {
			return ReadVictoriaMetrics(ctx, c, mint, maxt, matchers...)
		}})
	}
	return p.orClose(err)
}

// ReadVictoriaMetrics does what client.Read does, of a server without remote read, by /api/v1/export. Stale markers come as other NaNs,
// if they come. The server keeps about 15 decimal digits of a value.
func ReadVictoriaMetrics(ctx context.Context, c *client.Client, mint, maxt int64, matchers ...*prompb.LabelMatcher) (client.Data, error) {
	// What was written in the last second is not seen else.
	if _, err := c.Get(ctx, "/internal/force_flush", nil); err != nil {
		return nil, err
	}
	resp, err := c.Post(ctx, "/api/v1/export", url.Values{
		"match[]": {selector(matchers)}, "start": {client.Seconds(mint)}, "end": {client.Seconds(maxt)},
	})
	if err != nil {
		return nil, err
	}
	data := client.Data{}
	for dec := json.NewDecoder(bytes.NewReader(resp.Body)); ; {
		var row struct {
			Metric     map[string]string `json:"metric"`
			Values     []*float64        `json:"values"` // null is NaN
			Timestamps []int64           `json:"timestamps"`
		}
		if err := dec.Decode(&row); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
		if len(row.Values) != len(row.Timestamps) {
			return nil, fmt.Errorf("export: %d values at %d times", len(row.Values), len(row.Timestamps))
		}
		var ls []prompb.Label
		for name, value := range row.Metric {
			ls = append(ls, prompb.Label{Name: name, Value: value})
		}
		key := client.Key(ls)
		for i, v := range row.Values {
			value := math.NaN()
			if v != nil {
				value = *v
			}
			data[key] = append(data[key], client.Sample{T: row.Timestamps[i], Bits: math.Float64bits(value)})
		}
	}
	for _, samples := range data {
		slices.SortStableFunc(samples, func(a, b client.Sample) int { return cmp.Compare(a.T, b.T) })
	}
	return data, nil
}

// selector writes matchers in PromQL.
func selector(matchers []*prompb.LabelMatcher) string {
	operators := map[prompb.LabelMatcher_Type]string{
		prompb.LabelMatcher_EQ: "=", prompb.LabelMatcher_NEQ: "!=", prompb.LabelMatcher_RE: "=~", prompb.LabelMatcher_NRE: "!~",
	}
	var list []string
	for _, m := range matchers {
		list = append(list, fmt.Sprintf("%s%s%q", m.Name, operators[m.Type], m.Value))
	}
	return "{" + strings.Join(list, ",") + "}"
}
