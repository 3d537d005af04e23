// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// farm plays any number of targets: it is the HTTP proxy of the scrape configuration, so that their names, and with them
// the sharding, are the same in each run. Nodes tell who they are by a header of their own configuration.
type farm struct {
	*httptest.Server
	answer http.HandlerFunc // nil: one gauge

	mu      sync.Mutex // protects scrapes
	scrapes map[string][]visit
}

type visit struct {
	node string
	at   time.Time
}

func newFarm(t *testing.T) *farm {
	f := &farm{scrapes: map[string][]visit{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *farm) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.scrapes[r.URL.Host] = append(f.scrapes[r.URL.Host], visit{r.Header.Get("X-Node"), time.Now()})
	f.mu.Unlock()
	if f.answer != nil {
		f.answer(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintln(w, "answer 42")
}

// visits are the scrapes of each target since a time.
func (f *farm) visits(since time.Time) map[string][]visit {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string][]visit{}
	for target, all := range f.scrapes {
		for _, v := range all {
			if v.at.After(since) {
				out[target] = append(out[target], v)
			}
		}
	}
	return out
}

// owners are the nodes that scraped each target since a time; an error unless each of n targets has one, which came at
// least twice.
func (f *farm) owners(since time.Time, n int) (map[string]string, error) {
	visits := f.visits(since)
	if len(visits) != n {
		return nil, fmt.Errorf("%d of %d targets were scraped", len(visits), n)
	}
	out := map[string]string{}
	for target, all := range visits {
		for _, v := range all {
			if v.node != all[0].node {
				return nil, fmt.Errorf("%s was scraped by %s and %s", target, all[0].node, v.node)
			}
		}
		if len(all) < 2 {
			return nil, fmt.Errorf("%s was scraped once", target)
		}
		out[target] = all[0].node
	}
	return out, nil
}
