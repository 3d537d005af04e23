// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kingpin/v2"
)

// maxAnswer bounds what a command reads of an answer.
const maxAnswer = 16 << 20

// runCall parses the flags of a command, --url among them, and calls a node.
func runCall(ctx context.Context, app *kingpin.Application, args []string, stdout, stderr io.Writer, doing string, call func(context.Context, *url.URL) error) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	var code *int
	app.UsageWriter(stdout).ErrorWriter(stderr)
	app.HelpFlag.Short('h')
	app.Terminate(func(c int) { code = &c })
	base := app.Flag("url", "Address of any node.").Default("http://localhost:9090").URL()
	_, err := app.Parse(args)
	switch {
	case code != nil: // --help
		return *code
	case err != nil:
		fmt.Fprintf(stderr, "Error parsing command line arguments: %s\n", err)
		return exitUsage
	}
	if err := call(ctx, *base); err != nil {
		fmt.Fprintf(stderr, "Error %s: %s\n", doing, err)
		return exitFailed
	}
	return exitOK
}

// postForm calls an admin endpoint of the server at base.
func postForm[T any](ctx context.Context, base *url.URL, path string, form url.Values) (*T, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base.JoinPath(path).String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return send[T](req)
}

// send returns the data of the answer. One that is no success is an error, with what the server says.
func send[T any](req *http.Request) (*T, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error string `json:"error"`
		Data  *T     `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("%s answers %s: %q", req.URL.Redacted(), resp.Status, body[:min(len(body), 200)])
	}
	if answer.Error != "" || answer.Data == nil {
		return nil, fmt.Errorf("%s answers %s: %s", req.URL.Redacted(), resp.Status, answer.Error)
	}
	return answer.Data, nil
}
