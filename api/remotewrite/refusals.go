// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/deucaliondb/deucalion/fsm"
)

// Reasons for which this package refuses what the state machine never gets to see. They are label values of a metric.
const (
	reasonLabels    = "invalid_labels"
	reasonTooNew    = "out_of_bounds" // as fsm.OutOfBounds
	reasonHistogram = "invalid_histogram"
	reasonNoSamples = "no_samples"
	reasonExemplar  = "invalid_exemplar"

	labelsTooLong = "labels of series %s are too long: more than %d bytes"

	maxExamples = 8   // refusals told one by one in an answer
	maxDetail   = 512 // bytes of a label set in an answer
)

// refusals are what the writer is told about the part of its request that was not taken.
type refusals struct {
	first  []string
	counts map[string]int // samples by reason
}

// add notes n samples that are refused for reason; the message is built for the first few only.
func (r *refusals) add(reason string, n int, format string, args ...any) {
	if r.counts == nil {
		r.counts = make(map[string]int)
	}
	r.counts[reason] += n
	if len(r.first) >= maxExamples {
		return
	}
	for i, arg := range args {
		if ls, ok := arg.(labels.Labels); ok {
			args[i] = brief(ls)
		}
	}
	r.first = append(r.first, fmt.Sprintf(format, args...))
}

// addOutcome notes what the state machine refused, in the words of Prometheus.
func (r *refusals) addOutcome(o fsm.Outcome) {
	for _, s := range o.First {
		r.add(s.Reason.String(), 0, "%v for series %v at %d", s.Reason.Err(), s.Labels, s.T)
	}
	for reason, n := range o.Refused {
		if r.counts == nil {
			r.counts = make(map[string]int)
		}
		r.counts[reason.String()] += n
	}
}

func (r *refusals) any() bool { return len(r.counts) > 0 }

// message is the body of the 400: what Prometheus says about the first refused sample, then the counts.
func (r *refusals) message(accepted int) string {
	var b strings.Builder
	for _, m := range r.first {
		b.WriteString(m)
		b.WriteByte('\n')
	}
	b.WriteString("refused: ")
	for i, reason := range slices.Sorted(maps.Keys(r.counts)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d %s", r.counts[reason], reason)
	}
	fmt.Fprintf(&b, "; written: %d", accepted)
	return b.String()
}

// brief is ls for a message: label sets may be megabytes.
func brief(ls labels.Labels) string {
	if ls.ByteSize() <= maxDetail {
		return ls.String()
	}
	name := ls.Get(model.MetricNameLabel)
	return fmt.Sprintf("{__name__=%q, ...}", name[:min(len(name), maxDetail)])
}
