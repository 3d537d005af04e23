// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Result is what a query gave, in a form that does not depend on the order of the series.
type Result struct {
	Type   string // vector, matrix, scalar or string
	Series []ResultSeries
}

// ResultSeries is one line of a Result.
type ResultSeries struct {
	Labels string // canonical JSON
	Points []Point
}

// Point is a timestamp and a value as the server wrote them.
type Point struct {
	T     json.Number
	Value string
}

// String shows a result, one series a line.
func (r *Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %d\n", r.Type, len(r.Series))
	for _, s := range r.Series {
		fmt.Fprintf(&b, "%s %v\n", s.Labels, s.Points)
	}
	return b.String()
}

// Query evaluates an instant query at ms.
func (c *Client) Query(ctx context.Context, expr string, ms int64) (*Result, error) {
	return c.query(ctx, "/api/v1/query", url.Values{"query": {expr}, "time": {Seconds(ms)}})
}

// QueryRange evaluates a range query; start and end are ms, step is in the notation of Prometheus.
func (c *Client) QueryRange(ctx context.Context, expr string, start, end int64, step string) (*Result, error) {
	return c.query(ctx, "/api/v1/query_range", url.Values{
		"query": {expr}, "start": {Seconds(start)}, "end": {Seconds(end)}, "step": {step},
	})
}

// Seconds writes ms as the API takes times.
func Seconds(ms int64) string { return strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64) }

// Data fetches path and decodes the data of Prometheus's envelope into out.
func (c *Client) Data(ctx context.Context, path string, params url.Values, out any) error {
	resp, err := c.Get(ctx, path, params)
	if err != nil {
		return err
	}
	envelope := struct {
		Status string          `json:"status"`
		Data   json.RawMessage `json:"data"`
	}{}
	if err := json.Unmarshal(resp.Body, &envelope); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if envelope.Status != "success" {
		return fmt.Errorf("%s: status %q: %s", path, envelope.Status, resp.Body)
	}
	return json.Unmarshal(envelope.Data, out)
}

func (c *Client) query(ctx context.Context, path string, params url.Values) (*Result, error) {
	var data struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	}
	if err := c.Data(ctx, path, params, &data); err != nil {
		return nil, fmt.Errorf("query %s: %w", params.Get("query"), err)
	}
	r := &Result{Type: data.ResultType}
	if err := r.decode(data.Result); err != nil {
		return nil, fmt.Errorf("query %s: %w", params.Get("query"), err)
	}
	slices.SortFunc(r.Series, func(a, b ResultSeries) int { return strings.Compare(a.Labels, b.Labels) })
	return r, nil
}

func (r *Result) decode(raw json.RawMessage) error {
	if r.Type == "scalar" || r.Type == "string" {
		var p Point
		err := json.Unmarshal(raw, &p)
		r.Series = []ResultSeries{{Points: []Point{p}}}
		return err
	}
	var rows []struct {
		Metric map[string]string `json:"metric"`
		Value  *Point            `json:"value"`
		Values []Point           `json:"values"`
	}
	if err := json.Unmarshal(raw, &rows); err != nil {
		return err
	}
	for _, row := range rows {
		ls, err := json.Marshal(row.Metric)
		if err != nil {
			return err
		}
		if row.Value != nil {
			row.Values = append(row.Values, *row.Value)
		}
		r.Series = append(r.Series, ResultSeries{Labels: string(ls), Points: row.Values})
	}
	return nil
}

// UnmarshalJSON reads [time, "value"].
func (p *Point) UnmarshalJSON(raw []byte) error {
	return json.Unmarshal(raw, &[]any{&p.T, &p.Value})
}
