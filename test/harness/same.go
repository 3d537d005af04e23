// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
	"github.com/deucaliondb/deucalion/test/local"
)

var errIncomplete = errors.New("digests are incomplete")

// Same insists that all nodes of c hold the same: the digests at one log index, which cover series table and settings
// too, and what each answers about exemplars and metadata, which Same returns. All nodes must be well, and nobody may be
// writing.
func Same(t *testing.T, c *local.Cluster) (exemplars, metadata string) {
	t.Helper()
	sameDigest(t, Leader(t, c))
	now := time.Now()
	for i, n := range c.Nodes {
		x := answer(t, n, "/api/v1/query_exemplars", url.Values{
			"query": {`{__name__=~".+"}`},
			"start": {client.Seconds(now.Add(-24 * time.Hour).UnixMilli())}, "end": {client.Seconds(now.Add(time.Hour).UnixMilli())},
		})
		m := answer(t, n, "/api/v1/metadata", nil)
		if i == 0 {
			exemplars, metadata = x, m
		}
		require.Equal(t, exemplars, x, "exemplars of %s and %s", c.Nodes[0].Name, n.Name)
		require.Equal(t, metadata, m, "metadata of %s and %s", c.Nodes[0].Name, n.Name)
	}
	return exemplars, metadata
}

// sameDigest asks again while a node has no result: it may be busy with a scheduled digest, or have just been elected.
func sameDigest(t *testing.T, leader *local.Server) {
	t.Helper()
	cl := leader.Client()
	defer cl.Close()
	var d *client.Digest
	Await(t, readyTimeout, "the digests of all nodes", func(ctx context.Context) (err error) {
		if d, err = cl.Digest(ctx); err == nil && d.Result == "incomplete" {
			err = fmt.Errorf("%w: %+v", errIncomplete, d.Nodes)
		}
		return err
	})
	text, err := json.Marshal(d)
	require.NoError(t, err)
	require.Equal(t, "equal", d.Result, "%s", text)
}

// answer is the data of a linearizable answer, as text.
func answer(t *testing.T, n *local.Server, path string, params url.Values) string {
	t.Helper()
	cl := n.Client().At(client.Linearizable)
	defer cl.Close()
	var raw json.RawMessage
	require.NoError(t, cl.Data(t.Context(), path, params, &raw), "%s of %s", path, n.Name)
	return string(raw)
}
