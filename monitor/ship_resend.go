// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
)

// badRequest is how the library's client begins the error of a request that the remote store will never take.
const badRequest = "server returned HTTP status 400"

// resend sends a request again in parts, after a remote store has refused all of it. After a failover, requests hold
// samples that an earlier leader had delivered, and with remote write 1.0 a Prometheus without an out-of-order window
// throws a whole request away for one of them that is older than the newest of its series, with the samples in it that
// are new. Each half is tried, and of a refused half each half; what is refused alone was there already, or is bad.
// An error that passes ends it: the queue then tries the whole request again.
func (c *shipClient) resend(ctx context.Context, req []byte, attempt int) error {
	w, err := remote.DecodeWriteRequest(bytes.NewReader(req))
	if err != nil {
		return err
	}
	return c.parts(ctx, w.Timeseries, attempt)
}

func (c *shipClient) parts(ctx context.Context, series []prompb.TimeSeries, attempt int) error {
	if len(series) <= 1 {
		c.refused.Add(float64(len(series)))
		return nil
	}
	half := len(series) / 2
	for _, part := range [][]prompb.TimeSeries{series[:half], series[half:]} {
		b, err := (&prompb.WriteRequest{Timeseries: part}).Marshal()
		if err != nil {
			return err
		}
		_, err = (*c.inner.Load()).Store(ctx, snappy.Encode(nil, b), attempt)
		if refusedForGood(err) {
			err = c.parts(ctx, part, attempt)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func refusedForGood(err error) bool {
	return err != nil && !errors.As(err, &remote.RecoverableError{}) && strings.HasPrefix(err.Error(), badRequest)
}
