// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

// Package client speaks to a Prometheus or a Deucalion server over HTTP as its
// users do: remote write, remote read, queries. It knows nothing of the project's
// own packages, so that a bug in those cannot hide itself in the test, and it
// works alike against a stock Prometheus, so that one can be held against the other.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Consistency levels of the header X-Deucalion-Consistency.
const (
	Local        = "local"
	Bounded      = "bounded"
	Linearizable = "linearizable"
)

// ErrStatus is wrapped by the error of a call that was answered with anything but 2xx.
var ErrStatus = errors.New("unexpected status")

// Client calls one server. It is safe for concurrent use; its fields are set before the first call.
type Client struct {
	// URL is the base of the server, such as http://127.0.0.1:9090, without a slash at its end.
	URL string
	// HTTP does the calls.
	HTTP *http.Client
	// Header is added to every request.
	Header http.Header
}

// New returns a client of the server at base whose calls end after two minutes at the latest.
func New(base string) *Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 10 * time.Second}
	return &Client{
		URL:    strings.TrimSuffix(base, "/"),
		HTTP:   &http.Client{Transport: transport, Timeout: 2 * time.Minute},
		Header: http.Header{},
	}
}

// At returns a client of the same server whose reads are done at a consistency level;
// "" leaves the level to the server. The two share connections.
func (c *Client) At(level string) *Client {
	d := *c
	d.Header = c.Header.Clone()
	d.Header.Del("X-Deucalion-Consistency")
	if level != "" {
		d.Header.Set("X-Deucalion-Consistency", level)
	}
	return &d
}

// Close drops the idle connections.
func (c *Client) Close() { c.HTTP.CloseIdleConnections() }

// Response is an answer, read whole.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Err is nil for a 2xx, else an error that wraps ErrStatus and quotes the answer.
func (r *Response) Err() error {
	if r.Status/100 == 2 {
		return nil
	}
	body := strings.TrimSpace(string(r.Body))
	if len(body) > 500 {
		body = body[:500] + "..."
	}
	return fmt.Errorf("%w %d: %s", ErrStatus, r.Status, body)
}

// Do sends a request; path starts with a slash. The error is nil whenever there is an answer, whatever its status.
func (c *Client) Do(ctx context.Context, method, path string, header http.Header, body []byte) (*Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for _, h := range []http.Header{c.Header, header} {
		for name, values := range h {
			req.Header[name] = values
		}
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: data}, nil
}

// Get fetches path with params and insists on 2xx.
func (c *Client) Get(ctx context.Context, path string, params url.Values) (*Response, error) {
	if len(params) > 0 {
		path += "?" + params.Encode()
	}
	return c.must(ctx, http.MethodGet, path, nil, nil)
}

// Post sends params as a form and insists on 2xx.
func (c *Client) Post(ctx context.Context, path string, params url.Values) (*Response, error) {
	form := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	return c.must(ctx, http.MethodPost, path, form, []byte(params.Encode()))
}

func (c *Client) must(ctx context.Context, method, path string, header http.Header, body []byte) (*Response, error) {
	resp, err := c.Do(ctx, method, path, header, body)
	if err != nil {
		return nil, err
	}
	if err := resp.Err(); err != nil {
		return resp, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return resp, nil
}
