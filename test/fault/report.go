// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/deucaliondb/deucalion/test/ledger"
)

// Report is what came of a run.
type Report struct {
	System    string         `json:"system"`
	Seed      uint64         `json:"seed"`
	Date      time.Time      `json:"date"`
	Seconds   float64        `json:"seconds"` // under load
	Offered   int            `json:"offered"` // samples that the ledger's writers would have sent without any fault
	Sent      int            `json:"sent"`
	Acked     int            `json:"acknowledged"`
	Lost      int            `json:"lost"`   // acknowledged and missing on a node, the worst of the nodes
	Ghosts    int            `json:"ghosts"` // there and never sent, or otherwise
	Digests   int            `json:"digests_equal"`
	Registers RegisterCounts `json:"registers"`
	Parts     []string       `json:"parts"`
	Findings  []string       `json:"findings"`
	Kinds     []Row          `json:"faults"`
	Rounds    []Round        `json:"rounds"`

	lost, ghosts map[string]int // by node
}

// Round is one fault and what clients saw of it.
type Round struct {
	Fault    string        `json:"fault"`
	Detail   string        `json:"detail"`
	Begin    time.Time     `json:"begin"`
	End      time.Time     `json:"end"`
	Recovery time.Duration `json:"recovery_ns"` // from the end of the fault until all nodes were ready and writes went on
	Sent     int           `json:"sent"`
	Acked    int           `json:"acknowledged"`
	Lost     int           `json:"lost"`
	Ghosts   int           `json:"ghosts"`
	Writes   time.Duration `json:"write_gap_ns"`
	Reads    time.Duration `json:"read_gap_ns"`
	Linear   time.Duration `json:"linearizable_read_gap_ns"`
	// Failed are the reads through the balancer that were not answered, Why is the error of the newest.
	Failed int    `json:"failed_balanced_reads"`
	Why    string `json:"why,omitempty"`
}

// String is the round for a log.
func (r Round) String() string {
	text := fmt.Sprintf("%d of %d samples acknowledged, no write for %s, no read for %s, no linearizable read for %s, well %s after the fault",
		r.Acked, r.Sent, short(r.Writes), short(r.Reads), short(r.Linear), short(r.Recovery))
	if r.Failed > 0 {
		text += fmt.Sprintf(", %d reads through the balancer failed, the last with %s", r.Failed, r.Why)
	}
	return text
}

// Row sums up the rounds of a kind of fault.
type Row struct {
	Fault    string        `json:"fault"`
	Rounds   int           `json:"rounds"`
	Sent     int           `json:"sent"`
	Acked    int           `json:"acknowledged"`
	Lost     int           `json:"lost"`
	Ghosts   int           `json:"ghosts"`
	Median   time.Duration `json:"median_write_gap_ns"`
	Writes   time.Duration `json:"longest_write_gap_ns"`
	Reads    time.Duration `json:"longest_read_gap_ns"`
	Linear   time.Duration `json:"longest_linearizable_read_gap_ns"`
	Failed   int           `json:"failed_balanced_reads"`
	Recovery time.Duration `json:"longest_recovery_ns"`
}

func newReport(o Options) *Report {
	return &Report{System: o.System.Name, Seed: o.Seed, Date: time.Now().UTC(), lost: map[string]int{}, ghosts: map[string]int{}}
}

func short(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }

// Green tells whether nothing was wrong so far.
func (r *Report) Green() bool { return len(r.Findings) == 0 && r.Lost == 0 && r.Ghosts == 0 }

// find books findings, up to a hundred.
func (r *Report) find(found ...string) {
	r.Findings = append(r.Findings, found[:min(len(found), max(0, 100-len(r.Findings)))]...)
}

// blame books the findings of an audit on the rounds in which the samples were sent.
func (r *Report) blame(n *Node, found ledger.Findings) {
	for _, one := range found {
		if round := r.during(one.T); round != nil {
			if one.Lost {
				round.Lost++
			} else {
				round.Ghosts++
			}
		}
	}
	lost, ghosts := found.Count()
	r.lost[n.Name] += lost
	r.ghosts[n.Name] += ghosts
	r.Lost, r.Ghosts = max(r.Lost, r.lost[n.Name]), max(r.Ghosts, r.ghosts[n.Name])
	for _, text := range found.Strings(5) {
		r.find(n.Name + ": " + text)
	}
}

// during finds the round in which the time t (ms) lies; each lasts until the next.
func (r *Report) during(t int64) *Round {
	i, _ := slices.BinarySearchFunc(r.Rounds, t, func(one Round, t int64) int {
		if one.Begin.UnixMilli() <= t {
			return -1
		}
		return 1
	})
	if i == 0 {
		return nil
	}
	return &r.Rounds[i-1]
}

// end sums up.
func (r *Report) end(floor float64) {
	byName := map[string][]Round{}
	var order []string
	for _, one := range r.Rounds {
		if byName[one.Fault] == nil {
			order = append(order, one.Fault)
		}
		byName[one.Fault] = append(byName[one.Fault], one)
	}
	for _, f := range Faults() { // in their order
		if rounds := byName[f.Name]; rounds != nil {
			r.Kinds = append(r.Kinds, sum(f.Name, rounds))
			order = slices.DeleteFunc(order, func(name string) bool { return name == f.Name })
		}
	}
	for _, name := range order {
		r.Kinds = append(r.Kinds, sum(name, byName[name]))
	}
	if share := r.Share(); share < floor {
		r.find(fmt.Sprintf("throughput: %.0f %% of the offered samples were acknowledged, less than %.0f %%", 100*share, 100*floor))
	}
}

// Merge makes one report of several that ran side by side, with seeds one after the other. Their Seconds do not add up.
func Merge(reports []*Report) *Report {
	all := &Report{System: reports[0].System, Seed: reports[0].Seed, Date: reports[0].Date}
	if len(reports) > 1 {
		all.System = fmt.Sprintf("%s, %d clusters side by side", all.System, len(reports))
	}
	for _, r := range reports {
		all.Seconds = max(all.Seconds, r.Seconds)
		all.Offered += r.Offered
		all.Sent += r.Sent
		all.Acked += r.Acked
		all.Lost += r.Lost
		all.Ghosts += r.Ghosts
		all.Digests += r.Digests
		all.Registers.add(r.Registers)
		all.Parts = append(all.Parts, r.Parts...)
		all.Findings = append(all.Findings, r.Findings...)
		all.Rounds = append(all.Rounds, r.Rounds...)
	}
	all.end(0) // each has been held against its floor
	return all
}

// Share is that part of the offered samples which was acknowledged.
func (r *Report) Share() float64 { return float64(r.Acked) / float64(max(r.Offered, 1)) }

func sum(name string, rounds []Round) Row {
	row := Row{Fault: name, Rounds: len(rounds)}
	var writes []time.Duration
	for _, one := range rounds {
		row.Sent += one.Sent
		row.Acked += one.Acked
		row.Lost += one.Lost
		row.Ghosts += one.Ghosts
		row.Failed += one.Failed
		row.Writes, row.Reads = max(row.Writes, one.Writes), max(row.Reads, one.Reads)
		row.Linear, row.Recovery = max(row.Linear, one.Linear), max(row.Recovery, one.Recovery)
		writes = append(writes, one.Writes)
	}
	slices.Sort(writes)
	row.Median = writes[len(writes)/2]
	return row
}

// Markdown is the report as a table.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, seed %d, %s: %d faults in %s under load, %d samples sent, %d acknowledged (%.0f %% of what was offered), %d lost, %d ghosts.\n\n",
		r.System, r.Seed, r.Date.Format(time.DateOnly), len(r.Rounds), (time.Duration(r.Seconds) * time.Second).String(), r.Sent, r.Acked, 100*r.Share(), r.Lost, r.Ghosts)
	fmt.Fprintf(&b, "Registers: %d writes, %d linearizable reads, %d bounded and %d local reads, %d reads of one's own write, %d reads through the balancer failed, %d operations accepted by porcupine. Digests of all nodes compared and equal: %d times.\n",
		r.Registers.Writes, r.Registers.Linearizable, r.Registers.Bounded, r.Registers.Local, r.Registers.MinIndex, r.Registers.BalancerErrs, r.Registers.Judged, r.Digests)
	for _, p := range r.Parts {
		fmt.Fprintln(&b, p)
	}
	b.WriteString("\n| fault | rounds | samples sent | acknowledged | lost | ghosts | median write gap | longest write gap | longest read gap | longest linearizable read gap | failed reads through the balancer | well again after |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, k := range r.Kinds {
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %s | %s | %s | %s | %d | %s |\n", k.Fault, k.Rounds, k.Sent, k.Acked, k.Lost, k.Ghosts,
			tenths(k.Median), tenths(k.Writes), tenths(k.Reads), tenths(k.Linear), k.Failed, tenths(k.Recovery))
	}
	if len(r.Findings) > 0 {
		b.WriteString("\nFindings:\n\n")
		for _, f := range r.Findings {
			fmt.Fprintf(&b, "- %s\n", f)
		}
	}
	return b.String()
}

func tenths(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// Write writes the report to dir, as name.md and name.json.
func (r *Report) Write(dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, name+".json"), text, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".md"), []byte(r.Markdown()), 0o644)
}
