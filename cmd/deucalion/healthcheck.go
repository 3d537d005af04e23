// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
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

// runHealthcheck is deucalion healthcheck: the health check of a container without a shell. It exits with 0 if the
// server answers 200, else with 1; Docker reserves 2.
func runHealthcheck(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	var code *int
	app := kingpin.New("deucalion healthcheck", "Ask a server whether it is ready. Exits with 0 if it answers 200, else with 1.").
		UsageWriter(stdout).ErrorWriter(stderr)
	app.HelpFlag.Short('h')
	app.Terminate(func(c int) { code = &c })
	target := app.Flag("url", "What to ask for: the end of it is /-/ready, or /-/healthy for whether the process answers at all.").
		Default("http://localhost:9090/-/ready").URL()
	timeout := app.Flag("timeout", "How long to wait for the answer.").Default("2s").Duration()
	insecure := app.Flag("insecure", "Take any certificate of the server: behind localhost it carries another name.").Bool()
	if _, err := app.Parse(args); err != nil {
		fmt.Fprintf(stderr, "Error parsing command line arguments: %s\n", err)
		return exitFailed
	}
	if code != nil {
		return *code
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	if err := askHealth(ctx, *target, *insecure); err != nil {
		fmt.Fprintf(stderr, "Error checking health: %s\n", err)
		return exitFailed
	}
	return exitOK
}

func askHealth(ctx context.Context, target *url.URL, insecure bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return err
	}
	// No proxy of the environment: the server is this container's.
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: insecure}, DisableKeepAlives: true}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s: %s", target.Redacted(), resp.Status, strings.TrimSpace(string(body)))
	}
	return nil
}
