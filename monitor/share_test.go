// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package monitor

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/cluster"
)

// view is a cluster as node n1 sees it.
type view struct {
	Cluster
	leader  string
	members []cluster.Member
}

func (v *view) ID() string                { return "n1" }
func (v *view) Leader() (string, bool)    { return v.leader, v.leader != "" }
func (v *view) Members() []cluster.Member { return v.members }

func scraping(ids ...string) []cluster.Member {
	var out []cluster.Member
	for _, id := range ids {
		out = append(out, cluster.Member{ID: id, Attributes: map[string]string{attribute: "1"}})
	}
	return out
}

// To a node that is cut off all others look dead. It must not scrape for the whole cluster.
func TestCutOffNodeKeepsItsShare(t *testing.T) {
	v := &view{}
	s := &Scraper{cluster: v, mode: ShardSpread}
	var mine share
	see := func(leader string, members []cluster.Member) []string {
		v.leader, v.members = leader, members
		mine = s.share(mine)
		return mine.members
	}
	require.Empty(t, see("", scraping("n1")), "just started")
	require.Empty(t, see("n2", scraping("n1")), "reached by the leader, but gossip knows nobody yet")
	require.Equal(t, []string{"n1", "n2", "n3"}, see("n2", scraping("n1", "n2", "n3")))
	require.Equal(t, []string{"n1", "n2", "n3"}, see("", scraping("n1")), "cut off")
	require.Equal(t, []string{"n1", "n2", "n3"}, see("", scraping("n1", "n3")), "an election")
	require.Equal(t, []string{"n1", "n3"}, see("n3", scraping("n1", "n3")))

	others := append([]cluster.Member{{ID: "n1"}}, scraping("n3")...)
	require.Equal(t, []string{"n3"}, see("", others), "not taking part any more, whether cut off or not")
	require.False(t, mine.owns(1) || mine.owns(2) || mine.owns(3) || mine.owns(4))
}
