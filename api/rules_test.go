// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/api"
	"github.com/deucaliondb/deucalion/api/internal/solo"
)

// fakeRuler has real rules, which it does not evaluate.
type fakeRuler struct {
	groups []*rules.Group
	err    error
}

func (r *fakeRuler) RuleGroups() []*rules.Group           { return r.groups }
func (r *fakeRuler) AlertingRules() []*rules.AlertingRule { return nil }
func (r *fakeRuler) Alertmanagers() []*url.URL            { return []*url.URL{{Scheme: "http", Host: "am:9093"}} }
func (r *fakeRuler) DroppedAlertmanagers() []*url.URL     { return nil }
func (r *fakeRuler) Evaluates(context.Context) error      { return r.err }

// follower is a solo node that names another one as its leader, and reaches it.
type follower struct {
	*solo.Node
	leader *instance
	asks   []string
	body   func(io.ReadCloser) io.ReadCloser // what becomes of an answer on its way; nil: nothing
}

func (*follower) ID() string { return "follower" }

func (f *follower) AskPeer(ctx context.Context, id, method, uri string, header http.Header, body io.Reader) (*http.Response, error) {
	f.asks = append(f.asks, id+" "+uri)
	resp, err := f.leader.AskPeer(ctx, id, method, uri, header, body)
	if err == nil && f.body != nil {
		resp.Body = f.body(pipe{ctx, resp.Body})
	}
	return resp, err
}

// pipe is a body as the network has it: it ends with the context of the request.
type pipe struct {
	ctx context.Context
	io.ReadCloser
}

func (p pipe) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.ReadCloser.Read(b)
}

func TestRulesOnAnyNode(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.yml")
	require.NoError(t, os.WriteFile(file, []byte("groups: [{name: g, rules: [{record: a, expr: '1'}, {alert: B, expr: '1'}]}]"), 0o644))
	ruler := &fakeRuler{}
	loaded, errs := rules.NewManager(&rules.ManagerOptions{Logger: slog.New(slog.DiscardHandler)}).LoadGroups(time.Minute, labels.EmptyLabels(), "", nil, false, file)
	require.Empty(t, errs)
	for _, g := range loaded {
		ruler.groups = append(ruler.groups, g)
	}
	leader := newInstance(t, func(c *api.Config) { c.Ruler = ruler })
	peer := &follower{leader: leader}
	asked := &fakeRuler{err: errors.New("not here")}
	other := newInstance(t, func(c *api.Config) {
		peer.Node = c.Cluster.(*solo.Node)
		c.Cluster, c.Ruler = peer, asked
		c.ExternalURL = &url.URL{Scheme: "http", Host: "h:9090", Path: "/prefix"}
	})
	for _, path := range []string{"/rules", "/rules?type=alert&rule_name[]=B", "/alerts", "/alertmanagers", "/rules?group_limit=x"} {
		own, theirs := leader.get("/api/v1"+path), other.get("/prefix/api/v1"+path, "Origin", "http://o")
		require.Equal(t, own.code, theirs.code, path)
		require.JSONEq(t, own.text, theirs.text, path)
		require.Equal(t, "solo", theirs.header.Get("X-Deucalion-Node"), path)
	}
	require.Equal(t, "solo /api/v1/rules?type=alert&rule_name[]=B", peer.asks[1])
	require.Contains(t, other.get("/prefix/api/v1/rules?type=alert").text, `"name":"B"`)
	require.NotContains(t, other.get("/prefix/api/v1/rules?type=alert").text, `"name":"a"`)
	require.Contains(t, other.get("/prefix/api/v1/alertmanagers").text, "am:9093")

	ruler.err = errors.New("deposed")
	requireAway(t, other.get("/prefix/api/v1/alerts"), "deposed")
	requireAway(t, leader.get("/api/v1/alerts"), "not taken the rules over yet")
	other.Set(solo.State{NoLeader: true})
	requireAway(t, other.get("/prefix/api/v1/rules"), "no leader")
}

func requireAway(t *testing.T, a answer, text string) {
	t.Helper()
	require.Equal(t, 503, a.code, a.text)
	require.Equal(t, "1", a.header.Get("Retry-After"))
	require.Contains(t, a.text, text)
	require.Equal(t, "unavailable", a.json(t)["errorType"])
}

// newFollower is an instance that asks another one for rules.
func newFollower(t *testing.T, body func(io.ReadCloser) io.ReadCloser) *instance {
	leader := newInstance(t, func(c *api.Config) { c.Ruler = &fakeRuler{} })
	return newInstance(t, func(c *api.Config) {
		c.Cluster = &follower{Node: c.Cluster.(*solo.Node), leader: leader, body: body}
		c.Ruler = &fakeRuler{err: errors.New("not here")}
	})
}

// An answer of the leader that breaks off must not look whole.
func TestRulesCutShort(t *testing.T) {
	i := newFollower(t, func(whole io.ReadCloser) io.ReadCloser {
		part := io.MultiReader(io.LimitReader(whole, 10), iotest.ErrReader(errors.New("leader died")))
		return struct {
			io.Reader
			io.Closer
		}{part, whole}
	})
	server := httptest.NewServer(i.handler)
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/v1/rules", nil)
	require.NoError(t, err)
	req.Header.Set("Accept-Encoding", "identity") // else it shows in the compression
	resp, err := server.Client().Do(req)
	if err != nil {
		return // cut off before the headers were out
	}
	defer resp.Body.Close()
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err)
}

// slow is a body on a thin line.
type slow struct{ io.ReadCloser }

func (s slow) Read(b []byte) (int, error) {
	time.Sleep(time.Minute)
	return s.ReadCloser.Read(b)
}

// The wait for the leader is bounded, and not how long its answer takes to arrive.
func TestRulesArriveSlowly(t *testing.T) {
	i := newFollower(t, func(b io.ReadCloser) io.ReadCloser { return slow{b} })
	synctest.Test(t, func(t *testing.T) {
		var a answer
		require.NotPanics(t, func() { a = i.get("/api/v1/rules") })
		require.Equal(t, 200, a.code)
		require.Equal(t, "success", a.json(t)["status"])
	})
}
