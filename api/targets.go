// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// Scraping is what is being scraped by this node; *scrape.Manager has it.
type Scraping interface {
	v1.ScrapePoolsRetriever
	v1.TargetRetriever
}

// target is Prometheus's, with the node that scrapes it.
type target struct {
	*v1.Target
	Node string `json:"node"`
}

type targetDiscovery struct {
	ActiveTargets       []target            `json:"activeTargets"`
	DroppedTargets      []*v1.DroppedTarget `json:"droppedTargets"`
	DroppedTargetCounts map[string]int      `json:"droppedTargetCounts"`
}

// targetRoutes adds the routes about targets, which each node answers for those that it scrapes: here their answers are
// put together.
func (a *API) targetRoutes(handle func(methods, path string, h http.Handler)) {
	for path, merge := range map[string]func(*http.Request, []part) (any, error){
		"/targets":               mergeTargets,
		"/targets/metadata":      mergeTargetMetadata,
		"/scrape_pools":          mergeScrapePools,
		"/scrape_pools/config":   firstPart,
		"/targets/relabel_steps": firstPart,
	} {
		handle("GET", path, a.plain(a.gate.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(headerNode, a.cfg.Cluster.ID())
			parts, warnings, ok := a.gather(w, r, path)
			if !ok {
				return
			}
			data, err := merge(r, parts)
			if err != nil {
				respondError(w, http.StatusInternalServerError, errInternal, err)
				return
			}
			writeJSON(w, http.StatusOK, envelope{Status: "success", Data: data, Warnings: warnings})
		}))))
	}
}

// decode reads the data of a part.
func (p part) decode(into any) error {
	if err := json.Unmarshal(p.data, into); err != nil {
		return fmt.Errorf("answer of node %s: %w", p.node, err)
	}
	return nil
}

// mergeTargets is ordered by pool and address. A target that is just moving may be there twice, or not at all.
func mergeTargets(_ *http.Request, parts []part) (any, error) {
	out := targetDiscovery{ActiveTargets: []target{}, DroppedTargets: []*v1.DroppedTarget{}}
	for _, p := range parts {
		var found v1.TargetDiscovery
		if err := p.decode(&found); err != nil {
			return nil, err
		}
		for _, t := range found.ActiveTargets {
			out.ActiveTargets = append(out.ActiveTargets, target{t, p.node})
		}
		out.DroppedTargets = append(out.DroppedTargets, found.DroppedTargets...)
		if found.DroppedTargetCounts != nil && out.DroppedTargetCounts == nil {
			out.DroppedTargetCounts = map[string]int{}
		}
		for pool, n := range found.DroppedTargetCounts {
			out.DroppedTargetCounts[pool] += n
		}
	}
	slices.SortStableFunc(out.ActiveTargets, func(a, b target) int {
		return cmp.Or(cmp.Compare(a.ScrapePool, b.ScrapePool), cmp.Compare(a.ScrapeURL, b.ScrapeURL))
	})
	slices.SortStableFunc(out.DroppedTargets, func(a, b *v1.DroppedTarget) int { return cmp.Compare(a.ScrapePool, b.ScrapePool) })
	return out, nil
}

// mergeTargetMetadata keeps to the limit, which each node has kept to as well.
func mergeTargetMetadata(r *http.Request, parts []part) (any, error) {
	limit, err := optionalInt(r, "limit")
	if err != nil {
		return nil, err
	}
	out := []json.RawMessage{}
	for _, p := range parts {
		var found []json.RawMessage
		if err := p.decode(&found); err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	if limit >= 0 && len(out) > limit {
		out = out[:limit]
	}
	return out, nil
}

func mergeScrapePools(_ *http.Request, parts []part) (any, error) {
	out := v1.ScrapePoolsDiscovery{ScrapePools: []string{}}
	for _, p := range parts {
		var found v1.ScrapePoolsDiscovery
		if err := p.decode(&found); err != nil {
			return nil, err
		}
		out.ScrapePools = append(out.ScrapePools, found.ScrapePools...)
	}
	slices.Sort(out.ScrapePools)
	out.ScrapePools = slices.Compact(out.ScrapePools)
	return out, nil
}

// firstPart is for what all nodes know alike, unless their configuration files differ.
func firstPart(_ *http.Request, parts []part) (any, error) { return parts[0].data, nil }
