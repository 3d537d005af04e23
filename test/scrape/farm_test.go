// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package scrape_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// farm plays any number of targets: it is the HTTP proxy of the nodes, so that the names of targets, and with them the
// sharding, are the same in each run. A node is known by the user that its proxy URL names.
type farm struct {
	*httptest.Server

	mu     sync.Mutex // protects visits
	visits []visit
}

type visit struct {
	target, node string
	at           time.Time
}

func newFarm(t *testing.T) *farm {
	f := &farm{}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

// proxy is the environment of a node that scrapes the farm.
func (f *farm) proxy(node string) string {
	return "HTTP_PROXY=http://" + node + ":x@" + strings.TrimPrefix(f.URL, "http://")
}

func (f *farm) serve(w http.ResponseWriter, r *http.Request) {
	credentials, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.Header.Get("Proxy-Authorization"), "Basic "))
	node, _, _ := strings.Cut(string(credentials), ":")
	f.mu.Lock()
	f.visits = append(f.visits, visit{r.URL.Host, node, time.Now()})
	f.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintln(w, "answer 42")
}

// since lists the visits to each target after a time, in order.
func (f *farm) since(at time.Time) map[string][]visit {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string][]visit{}
	for _, v := range f.visits {
		if v.at.After(at) {
			out[v.target] = append(out[v.target], v)
		}
	}
	return out
}

// owners tells which node alone has scraped each of n targets in the last two intervals and a half.
func (f *farm) owners(n int, interval time.Duration) (map[string]string, error) {
	out := map[string]string{}
	for target, visits := range f.since(time.Now().Add(-interval * 5 / 2)) {
		for _, v := range visits {
			if v.node != visits[0].node {
				return nil, fmt.Errorf("%s was scraped by %s and %s", target, visits[0].node, v.node)
			}
		}
		out[target] = visits[0].node
	}
	if len(out) != n {
		return nil, fmt.Errorf("%d of %d targets were scraped", len(out), n)
	}
	return out, nil
}
