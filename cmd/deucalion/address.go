// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/hashicorp/go-sockaddr"
)

// computeExternalURL completes --web.external-url as Prometheus does: from the host name and the port listened on.
func computeExternalURL(s, listen string) (*url.URL, error) {
	if s == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, err
		}
		_, port, err := net.SplitHostPort(listen)
		if err != nil {
			return nil, err
		}
		s = "http://" + net.JoinHostPort(host, port) + "/"
	}
	if strings.Trim(s, `"'`) != s {
		return nil, errors.New("URL must not begin or end with quotes")
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, err
	}
	if u.Path = strings.TrimRight(u.Path, "/"); u.Path != "" && !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	return u, nil
}

// httpAddress is where the other nodes and users reach this node's API: what it listens on, with the host of the
// cluster address, or a private address of this machine, in place of a wildcard.
func httpAddress(listening net.Addr, clusterAddress string) (string, error) {
	host, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return "", fmt.Errorf("HTTP address: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return net.JoinHostPort(host, port), nil
	}
	if h, _, err := net.SplitHostPort(clusterAddress); err == nil && h != "" {
		return net.JoinHostPort(h, port), nil
	}
	if private, err := sockaddr.GetPrivateIP(); err == nil && private != "" {
		return net.JoinHostPort(private, port), nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(name, port), nil
}
