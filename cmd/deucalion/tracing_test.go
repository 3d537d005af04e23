// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/pdata/ptrace/ptraceotlp"
)

// collector takes spans over OTLP.
type collector struct {
	mu    sync.Mutex // protects spans
	spans []ptrace.Span
}

// ServeHTTP implements http.Handler.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	req := ptraceotlp.NewExportRequest()
	if err == nil {
		err = req.UnmarshalProto(body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range req.Traces().ResourceSpans().All() {
		for _, scope := range resource.ScopeSpans().All() {
			for _, span := range scope.Spans().All() {
				c.spans = append(c.spans, span)
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// server are the spans of requests to a path.
func (c *collector) server(path string) (found []ptrace.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Kind() == ptrace.SpanKindServer && strings.HasSuffix(s.Name(), " "+path) {
			found = append(found, s)
		}
	}
	return found
}

// children are the spans below one.
func (c *collector) children(of ptrace.Span) (found []ptrace.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.TraceID() == of.TraceID() && s.ParentSpanID() == of.SpanID() {
			found = append(found, s)
		}
	}
	return found
}

// Each request makes a span, in the trace of the client if it names one, and what the query engine does is below it.
func TestTracing(t *testing.T) {
	spans := &collector{}
	s := httptest.NewServer(spans)
	defer s.Close()
	file := filepath.Join(t.TempDir(), "c.yml")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "tracing: {endpoint: %q, client_type: http, insecure: true, sampling_fraction: 1}",
		strings.TrimPrefix(s.URL, "http://")), 0o600))
	base := launch(t, t.TempDir(), "--config.file="+file).ready(t)

	const query, trace, parent = "/api/v1/query", "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	ask := func(path, traceparent string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		require.NoError(t, err)
		if traceparent != "" {
			req.Header.Set("traceparent", traceparent)
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, 200, res.StatusCode)
	}
	ask(query+"?query=1", "")
	ask("/api/v1/labels", "00-"+trace+"-"+parent+"-01")
	ask("/api/v1/series?match[]=up", "00-"+trace+"-"+parent+"-00") // not sampled by who began the trace

	await := func(path string) (span ptrace.Span) {
		require.Eventually(t, func() bool { // the exporter sends every 5 s
			found := spans.server(path)
			if len(found) > 0 {
				span = found[0]
			}
			return len(found) == 1
		}, 60*time.Second, 50*time.Millisecond, path)
		return span
	}
	own := await(query)
	require.Equal(t, "GET "+query, own.Name())
	require.True(t, own.ParentSpanID().IsEmpty())
	require.Eventually(t, func() bool { return len(spans.children(own)) > 0 }, 60*time.Second, 50*time.Millisecond, "of the engine")
	theirs := await("/api/v1/labels")
	require.Equal(t, trace, theirs.TraceID().String())
	require.Equal(t, parent, theirs.ParentSpanID().String())
	ask("/api/v1/metadata", "")
	await("/api/v1/metadata")
	require.Empty(t, spans.server("/api/v1/series"))
}
