// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/ledger"
)

func sampleReport() *Report {
	r := newReport(Options{System: &System{Name: "a system"}, Seed: 7})
	at := func(s int64) time.Time { return time.Unix(1000+s, 0) }
	r.Rounds = []Round{
		{Fault: "kill -9", Begin: at(0), End: at(5), Sent: 10, Acked: 10, Writes: time.Second},
		{Fault: "disk full", Begin: at(6), End: at(9), Sent: 20, Acked: 19, Writes: 2 * time.Second},
		{Fault: "kill -9", Begin: at(10), End: at(15), Sent: 30, Acked: 30, Writes: 3 * time.Second, Failed: 4, Why: "503"},
	}
	r.Offered, r.Sent, r.Acked = 100, 60, 59
	return r
}

func TestReportSumsUp(t *testing.T) {
	r := sampleReport()
	r.end(0.5)
	require.True(t, r.Green())
	require.Len(t, r.Kinds, 2)
	require.Equal(t, Row{Fault: "kill -9", Rounds: 2, Sent: 40, Acked: 40, Median: 3 * time.Second, Writes: 3 * time.Second, Failed: 4}, r.Kinds[0])
	require.Contains(t, r.Markdown(), "| disk full | 1 | 20 | 19 | 0 | 0 | 2.0 s |")
	require.Contains(t, r.Markdown(), "| kill -9 | 2 | 40 | 40 | 0 | 0 | 3.0 s | 3.0 s | 0.0 s | 0.0 s | 4 |")
	require.Contains(t, r.Rounds[2].String(), "4 reads through the balancer failed, the last with 503")

	dir := t.TempDir()
	require.NoError(t, r.Write(dir, "x"))
	text, err := os.ReadFile(filepath.Join(dir, "x.json"))
	require.NoError(t, err)
	var back Report
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, r.Kinds, back.Kinds)
}

func TestReportIsRedBelowTheFloor(t *testing.T) {
	r := sampleReport()
	r.end(0.6)
	require.False(t, r.Green())
	require.Contains(t, r.Markdown(), "throughput: 59 %")
}

// What is missing is booked on the fault during which it was sent; each node is counted for itself.
func TestReportBlamesTheFault(t *testing.T) {
	r := sampleReport()
	lost := ledger.Findings{{Lost: true, T: 1_007_000, Text: "lost"}, {T: 1_012_000, Text: "ghost"}}
	r.blame(&Node{Name: "n1"}, lost)
	r.blame(&Node{Name: "n2"}, lost[:1])
	r.end(0)
	require.False(t, r.Green())
	require.Equal(t, 1, r.Lost)
	require.Equal(t, 1, r.Ghosts)
	require.Equal(t, []int{0, 2, 0}, []int{r.Rounds[0].Lost, r.Rounds[1].Lost, r.Rounds[2].Lost})
	require.Equal(t, 1, r.Rounds[2].Ghosts)
}

func TestGap(t *testing.T) {
	var g Gap
	require.Zero(t, g.Take(), "nothing has been marked yet")
	g.Mark()
	g.last = g.last.Add(-time.Second)
	g.Mark()
	g.last = g.last.Add(-time.Millisecond)
	require.GreaterOrEqual(t, g.Take(), time.Second)
	require.Less(t, g.Take(), time.Second)
	g.Halt()
	g.last = g.last.Add(-time.Minute)
	g.Resume()
	require.Less(t, g.Take(), time.Second)
	g.last = g.last.Add(-time.Minute)
	require.GreaterOrEqual(t, g.Take(), time.Minute, "a gap that is still open counts")
}

func TestReportsMerge(t *testing.T) {
	a, b := sampleReport(), sampleReport()
	b.find("something")
	all := Merge([]*Report{a, b})
	require.False(t, all.Green())
	require.Equal(t, []int{6, 200, 118}, []int{len(all.Rounds), all.Offered, all.Acked})
	require.Equal(t, 4, all.Kinds[0].Rounds)
}
