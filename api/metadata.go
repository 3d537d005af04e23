// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/prometheus/prometheus/model/metadata"
)

// metadata is /api/v1/metadata. Prometheus answers it from the caches of its scrapers; here it comes from the
// replicated state, so that every node knows the metadata of what any node was sent.
func (a *API) metadata(w http.ResponseWriter, r *http.Request) {
	limit, err := optionalInt(r, "limit")
	if err != nil {
		respondError(w, http.StatusBadRequest, errBadData, err)
		return
	}
	perMetric, err := optionalInt(r, "limit_per_metric")
	if err != nil {
		respondError(w, http.StatusBadRequest, errBadData, err)
		return
	}
	all := a.cfg.FSM.MetricMetadata()
	if metric := r.FormValue("metric"); metric != "" {
		maps.DeleteFunc(all, func(family string, _ []metadata.Metadata) bool { return family != metric })
	}
	respond(w, limitMetadata(all, limit, perMetric))
}

// limitMetadata keeps the first limit families by name (below 0: all) and perMetric entries of each (below 1: all).
func limitMetadata(all map[string][]metadata.Metadata, limit, perMetric int) map[string][]metadata.Metadata {
	out := make(map[string][]metadata.Metadata, len(all))
	for _, family := range slices.Sorted(maps.Keys(all)) {
		if limit >= 0 && len(out) >= limit {
			break
		}
		entries := all[family]
		if perMetric > 0 && len(entries) > perMetric {
			entries = entries[:perMetric]
		}
		out[family] = entries
	}
	return out
}

// optionalInt is the parameter name as a number, -1 if it is not there.
func optionalInt(r *http.Request, name string) (int, error) {
	s := r.FormValue(name)
	if s == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errors.New(name + " must be a number")
	}
	return n, nil
}
