// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite_test

import (
	"testing"

	"github.com/prometheus/prometheus/prompb"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
	"github.com/stretchr/testify/require"
)

// FuzzDecodeV1 holds the hand-written decoder against the generated one. Ours may be stricter (groups, over-long
// numbers), but what it takes, the generated one takes too and reads the same; and it takes all that a generated
// encoder writes.
func FuzzDecodeV1(f *testing.F) {
	for _, body := range seedsV1(f) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		events, _, err := decode(t, false, body)
		var req prompb.WriteRequest
		theirs := req.Unmarshal(body)
		if err == nil {
			require.NoError(t, theirs)
			require.Equal(t, oracleV1(&req), events)
		}
		if theirs != nil {
			return
		}
		stripUnknown(&req)
		canonical, err := req.Marshal()
		require.NoError(t, err)
		events, _, err = decode(t, false, canonical)
		require.NoError(t, err)
		require.Equal(t, oracleV1(&req), events)
	})
}

// FuzzDecodeV2 is FuzzDecodeV1 for version 2.
func FuzzDecodeV2(f *testing.F) {
	for _, body := range seedsV2(f) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		events, _, err := decode(t, true, body)
		var req writev2.Request
		theirs := req.Unmarshal(body)
		if err == nil {
			require.NoError(t, theirs)
			require.Equal(t, oracleV2(&req), events)
		}
		if theirs != nil || len(req.Symbols) > 0 && req.Symbols[0] != "" {
			return
		}
		stripUnknownV2(&req)
		canonical, err := req.Marshal()
		require.NoError(t, err)
		events, _, err = decode(t, true, canonical)
		require.NoError(t, err)
		require.Equal(t, oracleV2(&req), events)
	})
}

// stripUnknown drops unknown fields, which the generated types keep and would write again as they came.
func stripUnknown(req *prompb.WriteRequest) {
	req.XXX_unrecognized = nil
	for i := range req.Timeseries {
		ts := &req.Timeseries[i]
		ts.XXX_unrecognized = nil
		for j := range ts.Labels {
			ts.Labels[j].XXX_unrecognized = nil
		}
		for j := range ts.Samples {
			ts.Samples[j].XXX_unrecognized = nil
		}
	}
}

func stripUnknownV2(req *writev2.Request) {
	req.XXX_unrecognized = nil
	for i := range req.Timeseries {
		ts := &req.Timeseries[i]
		ts.XXX_unrecognized, ts.Metadata.XXX_unrecognized = nil, nil
		for j := range ts.Samples {
			ts.Samples[j].XXX_unrecognized = nil
		}
	}
}
