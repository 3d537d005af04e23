// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
)

// reportOf makes a report of nodes a, b, c, ...; a node is written as the hashes of the tables and of the ranges, or as
// "gone", "busy" or "broken".
func reportOf(ranges []fsm.TimeRange, nodes ...string) *DigestReport {
	r := &DigestReport{Ranges: ranges}
	for i, text := range nodes {
		d := NodeDigest{ID: string(rune('a' + i))}
		switch text {
		case "gone":
			d.Missing = "out of reach"
		case "busy":
			d.Result = &fsm.DigestResult{Busy: true, Err: "busy"}
		case "broken":
			d.Result = &fsm.DigestResult{Err: "checksum mismatch"}
		default:
			d.Result = &fsm.DigestResult{StateHash: text[:1]}
			for k := range ranges {
				d.Result.Ranges = append(d.Result.Ranges, fsm.RangeDigest{TimeRange: ranges[k], Hash: text[k+1 : k+2]})
			}
		}
		r.Nodes = append(r.Nodes, d)
	}
	compareDigests(r)
	return r
}

func TestCompareDigests(t *testing.T) {
	two := []fsm.TimeRange{{Mint: 0, Maxt: 9}, {Mint: 10, Maxt: 19}}
	for _, tc := range []struct{ nodes, want string }{
		{"sxy sxy sxy", "equal []"},
		{"sxy", "equal []"},
		{"sxy sxY sxy", "mismatch [b]"},
		{"Sxy sxy sxy", "mismatch [a]"},
		{"Sxy sxY sxy", "mismatch [a b]"}, // in different parts
		{"sxy sxY", "mismatch [a b]"},     // no majority
		{"sxy sxY sxz", "mismatch [a b c]"},
		{"sxy gone sxy", "incomplete []"},
		{"sxy busy sxy", "incomplete []"},
		{"sxy broken sxy", "error []"},
		{"sxy broken gone", "error []"},
		{"sxy broken gone sxY sxY", "mismatch [a]"},
		{"gone gone gone", "incomplete []"},
		{"sxy sxy sxY sxY sxy", "mismatch [c d]"},
	} {
		r := reportOf(two, strings.Fields(tc.nodes)...)
		require.Equal(t, tc.want, r.Result+" "+fmt.Sprint(append([]string{}, r.Differing...)), tc.nodes)
		for _, d := range r.Nodes {
			require.Equal(t, strings.Contains(tc.want, d.ID+" ") || strings.Contains(tc.want, d.ID+"]"), d.Differs, tc.nodes)
			require.NotEmpty(t, d.hashes())
		}
	}
	r := reportOf(two[:1], "sx", "sx")
	r.Nodes[1].Result.Ranges[0].Samples = 1
	compareDigests(r)
	require.Equal(t, DigestMismatch, r.Result, "the count is part of it")
}

// A member that has hashed at another index than the others says nothing of them, nor they of it.
func TestCompareDigestsOfOneIndex(t *testing.T) {
	for _, tc := range []struct {
		indexes []uint64
		nodes   string
		index   uint64
		want    string
		missing string
	}{
		{[]uint64{7, 9, 7}, "s S s", 7, "incomplete []", "b"},
		{[]uint64{7, 7, 7}, "s s S", 7, "mismatch [c]", ""},
		{[]uint64{9, 9, 7}, "S S s", 7, "incomplete []", "ab"},
		{[]uint64{9, 9, 9}, "s s s", 9, "equal []", ""}, // all have passed over the first one
		{[]uint64{9, 7, 9}, "s busy s", 9, "incomplete []", ""},
		{[]uint64{7, 9, 7}, "s broken s", 7, "error []", ""},
	} {
		r := reportOf(nil, strings.Fields(tc.nodes)...)
		r.Index = 9
		for i := range r.Nodes {
			r.Nodes[i].Result.Index = tc.indexes[i]
		}
		compareDigests(r)
		require.Equal(t, tc.want, r.Result+" "+fmt.Sprint(append([]string{}, r.Differing...)), "%+v", tc)
		require.Equal(t, tc.index, r.Index, "%+v", tc)
		var missing string
		for _, d := range r.Nodes {
			if d.Result == nil {
				missing += d.ID
				require.Equal(t, errDigestSkipped.Error(), d.Missing)
			}
		}
		require.Equal(t, tc.missing, missing, "%+v", tc)
	}
}

// A finding stays until its range is compared again and found equal.
func TestFindings(t *testing.T) {
	day, hour, later := fsm.TimeRange{Mint: 0, Maxt: 99}, fsm.TimeRange{Mint: 10, Maxt: 19}, fsm.TimeRange{Mint: 100, Maxt: 199}
	var f findings
	add := func(ranges []fsm.TimeRange, nodes ...string) bool {
		f.add(reportOf(ranges, nodes...))
		return f.any()
	}
	require.False(t, add([]fsm.TimeRange{hour}, "sx", "sx"))
	require.True(t, add([]fsm.TimeRange{hour}, "sx", "sy"))
	require.True(t, add([]fsm.TimeRange{later}, "sx", "sx"), "another range says nothing")
	require.True(t, add([]fsm.TimeRange{day}, "sx", "gone"), "neither does an incomplete digest")
	require.False(t, add([]fsm.TimeRange{day}, "sx", "sx"))
	require.True(t, add([]fsm.TimeRange{day}, "sx", "broken"), "unreadable data are a finding")
	require.False(t, add([]fsm.TimeRange{day}, "sx", "sx"))
	require.True(t, add(nil, "s", "S"))
	require.False(t, add(nil, "s", "s"))
	require.True(t, add([]fsm.TimeRange{day}, "sx", "sy"))
	f.expire(99)
	require.True(t, f.any())
	f.expire(100)
	require.False(t, f.any(), "retention has removed it")
	for i := range int64(3 * maxFindings) {
		add([]fsm.TimeRange{{Mint: i, Maxt: i}}, "sx", "sy")
	}
	require.Len(t, f.ranges, maxFindings)
}

func TestPlanDigest(t *testing.T) {
	const h = int64(time.Hour / time.Millisecond)
	start := 1000*24*h + 5*h // on day 1000
	require.Empty(t, planDigest(start, start, time.Hour, nil, time.UnixMilli(0)))
	require.Empty(t, planDigest(start, start+h/2, time.Hour, nil, time.UnixMilli(0)), "no partition is complete")
	require.Equal(t, []fsm.TimeRange{{Mint: start - h, Maxt: start + h - 1}}, planDigest(start, start+2*h, time.Hour, nil, time.UnixMilli(0)))

	end := start + 10*24*h + 90*60_000 // day 1010, 06:30
	newest := fsm.TimeRange{Mint: 1010*24*h + 4*h, Maxt: 1010*24*h + 6*h - 1}
	for _, interval := range []time.Duration{time.Minute, time.Hour, 2 * time.Hour} {
		require.Equal(t, newest, planDigest(start, end, interval, nil, time.UnixMilli(0))[0])
	}
	require.Equal(t, newest.Mint-4*h, planDigest(start, end, 6*time.Hour, nil, time.UnixMilli(0))[0].Mint, "three partitions an interval")

	// Whatever the last one was, and whoever asks: in eleven digests every day has its turn.
	for _, now := range []int64{0, 3 * h, 1 << 45} {
		days := map[int64]bool{}
		var before []fsm.TimeRange
		for range 11 {
			before = planDigest(start, end, time.Hour, before, time.UnixMilli(now))
			require.Len(t, before, 2)
			require.Zero(t, before[1].Mint%(24*h))
			require.Less(t, before[1].Maxt, end)
			days[before[1].Mint/(24*h)] = true
		}
		require.Len(t, days, 11)
	}
	// Old days are gone meanwhile.
	gone := []fsm.TimeRange{newest, {Mint: 900 * 24 * h, Maxt: 901*24*h - 1}}
	require.Equal(t, 1010*24*h, planDigest(start, end, time.Hour, gone, time.UnixMilli(0))[1].Mint)
	require.NotPanics(t, func() { planDigest(-100*24*h-1, 0, time.Hour, nil, time.UnixMilli(0)) })
	require.Equal(t, int64(-2), floorTo(-1, 2))
}
