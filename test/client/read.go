// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"net/http"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// farFuture, in ms, is later than any sample and still far from the edges where TSDB's arithmetic overflows.
const farFuture = 1 << 50

// ReadAll fetches every sample of every series by remote read, uncut and unaligned, stale markers included.
func (c *Client) ReadAll(ctx context.Context) (Data, error) {
	return c.Read(ctx, 0, farFuture, &prompb.LabelMatcher{
		Type: prompb.LabelMatcher_RE, Name: "__name__", Value: ".+",
	})
}

// Read fetches the samples from mint to maxt (ms, both inclusive) of the series that match, by remote read.
func (c *Client) Read(ctx context.Context, mint, maxt int64, matchers ...*prompb.LabelMatcher) (Data, error) {
	resp, err := c.readRequest(ctx, &prompb.ReadRequest{
		Queries: []*prompb.Query{{
			StartTimestampMs: mint, EndTimestampMs: maxt, Matchers: matchers,
		}},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_SAMPLES},
	})
	if err != nil {
		return nil, err
	}
	return Collect(resp)
}

func (c *Client) readRequest(ctx context.Context, q *prompb.ReadRequest) (*prompb.ReadResponse, error) {
	raw, err := q.Marshal()
	if err != nil {
		return nil, err
	}
	answer, err := c.must(ctx, http.MethodPost, "/api/v1/read", http.Header{
		"Content-Encoding":                 {"snappy"},
		"Content-Type":                     {"application/x-protobuf"},
		"X-Prometheus-Remote-Read-Version": {"0.1.0"},
	}, snappy.Encode(nil, raw))
	if err != nil {
		return nil, err
	}
	if raw, err = snappy.Decode(nil, answer.Body); err != nil {
		return nil, fmt.Errorf("remote read answer: %w", err)
	}
	var resp prompb.ReadResponse
	if err := resp.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("remote read answer: %w", err)
	}
	return &resp, nil
}

// Collect turns the answer of a remote read into Data.
func Collect(resp *prompb.ReadResponse) (Data, error) {
	data := Data{}
	for _, result := range resp.Results {
		for _, ts := range result.Timeseries {
			key := Key(ts.Labels)
			if _, again := data[key]; again {
				return nil, fmt.Errorf("remote read answer: series %s twice", key)
			}
			data[key] = samplesOf(ts)
		}
	}
	return data, nil
}
