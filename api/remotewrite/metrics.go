// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package remotewrite

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/deucaliondb/deucalion/fsm"
)

type metrics struct {
	accepted      *prometheus.CounterVec
	refused       *prometheus.CounterVec
	invalidLabels prometheus.Counter
	malformed     prometheus.Counter
	unavailable   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		accepted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "deucalion_remote_write_samples_total",
			Help: "Samples and exemplars committed by remote write on this node, exact retries included.",
		}, []string{"type"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "deucalion_remote_write_refused_samples_total",
			Help: "Samples that remote write refused on this node, by what the writer was told.",
		}, []string{"reason"}),
		invalidLabels: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "prometheus_api_remote_write_invalid_labels_samples_total",
			Help: "The total number of received remote write samples and histogram samples which were rejected due to invalid labels.",
		}),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "deucalion_remote_write_malformed_requests_total",
			Help: "Remote write requests that were too large or could not be decoded; nothing of them was committed.",
		}),
		unavailable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "deucalion_remote_write_unavailable_requests_total",
			Help: "Remote write requests answered with 503 because they are not known to be committed.",
		}),
	}
	for _, t := range []string{"float", "histogram", "exemplar"} {
		m.accepted.WithLabelValues(t)
	}
	for _, r := range []fsm.Reason{fsm.TooOld, fsm.OutOfOrder, fsm.Duplicate, fsm.OutOfBounds, fsm.Invalid} {
		m.refused.WithLabelValues(r.String())
	}
	for _, reason := range []string{reasonLabels, reasonHistogram, reasonNoSamples, reasonExemplar} {
		m.refused.WithLabelValues(reason)
	}
	if reg != nil {
		reg.MustRegister(m.accepted, m.refused, m.invalidLabels, m.malformed, m.unavailable)
	}
	return m
}

func (m *metrics) observe(o fsm.Outcome, refused *refusals) {
	m.accepted.WithLabelValues("float").Add(float64(o.Floats))
	m.accepted.WithLabelValues("histogram").Add(float64(o.Histograms))
	m.accepted.WithLabelValues("exemplar").Add(float64(o.Exemplars))
	for reason, n := range refused.counts {
		m.refused.WithLabelValues(reason).Add(float64(n))
	}
}
