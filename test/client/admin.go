// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
)

// errNoName means that a snapshot was taken and not named.
var errNoName = errors.New("no name in the answer")

// Delete deletes samples through the admin API; params are match[], start and end.
func (c *Client) Delete(ctx context.Context, params url.Values) error {
	_, err := c.Post(ctx, "/api/v1/admin/tsdb/delete_series", params)
	return err
}

// Clean cleans tombstones through the admin API.
func (c *Client) Clean(ctx context.Context) error {
	_, err := c.Post(ctx, "/api/v1/admin/tsdb/clean_tombstones", nil)
	return err
}

// Snapshot takes a user snapshot through the admin API and returns its name.
func (c *Client) Snapshot(ctx context.Context) (string, error) {
	resp, err := c.Post(ctx, "/api/v1/admin/tsdb/snapshot", nil)
	if err != nil {
		return "", err
	}
	var answer struct {
		Data struct {
			Name string `json:"name"`
		} `json:"data"`
	}
	if err := json.Unmarshal(resp.Body, &answer); err != nil {
		return "", fmt.Errorf("snapshot: %w", err)
	}
	if answer.Data.Name == "" {
		return "", fmt.Errorf("snapshot: %w: %s", errNoName, resp.Body)
	}
	return answer.Data.Name, nil
}

// Digest is what the nodes of a cluster found when they compared their data.
type Digest struct {
	Result    string       `json:"result"` // "equal" if they hold the same
	Index     uint64       `json:"index"`
	Differing []string     `json:"differing"`
	Nodes     []NodeDigest `json:"nodes"`
}

// NodeDigest is the part of one node.
type NodeDigest struct {
	ID     string `json:"id"`
	Result *struct {
		Ranges []struct {
			Samples uint64 `json:"samples"`
			Hash    string `json:"hash"`
		} `json:"ranges"`
	} `json:"result"`
}

// Samples is how many the node has; 0 if it did not answer.
func (n NodeDigest) Samples() (sum uint64) {
	if n.Result == nil {
		return 0
	}
	for _, r := range n.Result.Ranges {
		sum += r.Samples
	}
	return sum
}

// Digest makes the nodes of a Deucalion cluster compare all their data.
func (c *Client) Digest(ctx context.Context) (*Digest, error) {
	resp, err := c.Post(ctx, "/api/v1/admin/cluster/digest", nil)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Data Digest `json:"data"`
	}
	if err := json.Unmarshal(resp.Body, &answer); err != nil {
		return nil, fmt.Errorf("digest: %w", err)
	}
	return &answer.Data, nil
}
