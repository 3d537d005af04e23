// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"net/http"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// Encode makes the body of a remote-write 1.0 request. The labels of each series must be sorted by name.
func Encode(series []prompb.TimeSeries) ([]byte, error) {
	return EncodeRequest(&prompb.WriteRequest{Timeseries: series})
}

// EncodeRequest is Encode for a request with metadata too.
func EncodeRequest(r *prompb.WriteRequest) ([]byte, error) {
	raw, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	return snappy.Encode(nil, raw), nil
}

// WriteBody posts a body made by Encode to /api/v1/write. The error is nil whenever there is an answer.
func (c *Client) WriteBody(ctx context.Context, body []byte) (*Response, error) {
	return c.Do(ctx, http.MethodPost, "/api/v1/write", http.Header{
		"Content-Encoding":                  {"snappy"},
		"Content-Type":                      {"application/x-protobuf"},
		"X-Prometheus-Remote-Write-Version": {"0.1.0"},
	}, body)
}

// Write encodes and posts series and insists on 2xx.
func (c *Client) Write(ctx context.Context, series []prompb.TimeSeries) error {
	body, err := Encode(series)
	if err != nil {
		return err
	}
	resp, err := c.WriteBody(ctx, body)
	if err != nil {
		return err
	}
	return resp.Err()
}

// Labels makes sorted labels of name, value, name, value ...; the names must be given in sorted order.
func Labels(pairs ...string) []prompb.Label {
	out := make([]prompb.Label, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return out
}
