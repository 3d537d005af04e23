// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/deucaliondb/deucalion/fsm"
)

// compareDigests fills in the verdict. Each part, the tables and every range, is compared on its own, and the majority
// of those that have a hash is right.
func compareDigests(r *DigestReport) {
	r.keepOneIndex()
	differs := map[string]bool{}
	for part := -1; part < len(r.Ranges); part++ {
		for _, id := range r.minority(part) {
			differs[id] = true
		}
	}
	r.Result, r.Differing = DigestEqual, nil
	for i := range r.Nodes {
		d := &r.Nodes[i]
		d.Differs = differs[d.ID]
		switch {
		case d.Differs:
			r.Differing = append(r.Differing, d.ID)
		case d.failed():
			r.Result = DigestError
		case d.absent() && r.Result == DigestEqual:
			r.Result = DigestIncomplete
		}
	}
	slices.Sort(r.Differing)
	if len(r.Differing) > 0 {
		r.Result = DigestMismatch
	}
}

// keepOneIndex leaves out what was hashed at another index: after a lost answer the entry is in the log twice, and a member
// that passed over the first one has hashed at the second.
func (r *DigestReport) keepOneIndex() {
	first := uint64(math.MaxUint64)
	for _, d := range r.Nodes {
		if d.hash(-1) != "" {
			first = min(first, d.Result.Index)
		}
	}
	if first == math.MaxUint64 {
		return
	}
	r.Index = first
	for i := range r.Nodes {
		if d := &r.Nodes[i]; d.hash(-1) != "" && d.Result.Index != first {
			d.Missing, d.Result = errDigestSkipped.Error(), nil
		}
	}
}

// minority lists the nodes that differ from the majority in one part; all, when there is no majority.
func (r *DigestReport) minority(part int) []string {
	groups := map[string][]string{}
	total := 0
	for _, d := range r.Nodes {
		if h := d.hash(part); h != "" {
			groups[h] = append(groups[h], d.ID)
			total++
		}
	}
	var out []string
	for _, ids := range groups {
		if 2*len(ids) <= total {
			out = append(out, ids...)
		}
	}
	return out
}

// failed: the node has looked and could not read its data.
func (d NodeDigest) failed() bool { return d.Result != nil && d.Result.Err != "" && !d.Result.Busy }

// absent: the node is gone, or had something else to do.
func (d NodeDigest) absent() bool { return d.Result == nil || d.Result.Busy }

// hash of a range; -1 is the tables. "" when the node has none.
func (d NodeDigest) hash(part int) string {
	if d.Result == nil || d.Result.Err != "" || part >= len(d.Result.Ranges) {
		return ""
	}
	if part < 0 {
		return d.Result.StateHash
	}
	x := d.Result.Ranges[part]
	return fmt.Sprintf("%s/%d/%d", x.Hash, x.Series, x.Samples)
}

// hashes is for log lines.
func (d NodeDigest) hashes() string {
	switch {
	case d.Result == nil:
		return d.Missing
	case d.Result.Err != "":
		return d.Result.Err
	}
	parts := []string{"tables " + d.Result.StateHash}
	for _, x := range d.Result.Ranges {
		parts = append(parts, fmt.Sprintf("[%d, %d] %s of %d samples in %d series", x.Mint, x.Maxt, x.Hash, x.Samples, x.Series))
	}
	return strings.Join(parts, ", ")
}

// partResult is the verdict on one part alone.
func (r *DigestReport) partResult(part int) string {
	if len(r.minority(part)) > 0 {
		return DigestMismatch
	}
	result := DigestEqual
	for _, d := range r.Nodes {
		switch {
		case d.failed():
			return DigestError
		case d.absent():
			result = DigestIncomplete
		}
	}
	return result
}

// findings are the parts whose newest comparison found something wrong. Not goroutine-safe.
type findings struct {
	tables bool
	ranges []fsm.TimeRange
}

// maxFindings bounds the ranges remembered. One is enough for the alarm.
const maxFindings = 64

// add takes in a report: what is equal now, and all that lies in it, is no finding any more. A comparison that was
// incomplete clears nothing.
func (f *findings) add(r *DigestReport) {
	for part := -1; part < len(r.Ranges); part++ {
		result := r.partResult(part)
		bad := result == DigestMismatch || result == DigestError
		if result == DigestIncomplete {
			continue
		}
		if part < 0 {
			f.tables = bad
			continue
		}
		x := r.Ranges[part]
		f.ranges = slices.DeleteFunc(f.ranges, x.Contains)
		if bad && len(f.ranges) < maxFindings {
			f.ranges = append(f.ranges, x)
		}
	}
}

// expire forgets ranges that retention has removed.
func (f *findings) expire(cutoff int64) {
	f.ranges = slices.DeleteFunc(f.ranges, func(x fsm.TimeRange) bool { return x.Maxt < cutoff })
}

func (f *findings) any() bool { return f.tables || len(f.ranges) > 0 }
