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
