// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/prompb"

	"github.com/deucaliondb/deucalion/test/client"
)

// addExtras gives a request an exemplar of its first series, and metadata of a family that its writer alone writes about.
// Both bear a name that no other request has.
func (l *Ledger) addExtras(b *batch, w *prompb.WriteRequest) {
	s := b.series[0]
	b.trace = fmt.Sprintf("%s-%d-%d", l.run, s.number, b.from)
	w.Timeseries[0].Exemplars = []prompb.Exemplar{{
		Labels: client.Labels("trace_id", b.trace), Value: s.value(b.from), Timestamp: s.times[b.to-1],
	}}
	w.Metadata = []prompb.MetricMetadata{{
		MetricFamilyName: fmt.Sprintf("ledger_writer_%d", s.number), Type: prompb.MetricMetadata_GAUGE, Help: b.trace, Unit: "samples",
	}}
}

// CheckExtras looks for those of the request that was acknowledged last, in what a server answers about exemplars and
// metadata; those before it may have been displaced. nil is as it should be.
func (l *Ledger) CheckExtras(exemplars, metadata string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trace == "" {
		return nil // nothing was acknowledged
	}
	var out []string
	for what, answer := range map[string]string{"exemplar": exemplars, "metadata": metadata} {
		if !strings.Contains(answer, `"`+l.trace+`"`) {
			out = append(out, fmt.Sprintf("acknowledged %s lost: %q", what, l.trace))
		}
	}
	return out
}
