// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v2"
)

// readWebConfig checks the file of --web.config.file, with the certificates that it names, and tells whether it asks
// for TLS. "" is no file. The server reads it again for each connection and request, so that certificates and passwords
// can change; TLS itself is switched on and off by a restart only.
func readWebConfig(path string) (tls bool, err error) {
	if path == "" {
		return false, nil
	}
	if err := web.Validate(path); err != nil {
		return false, fmt.Errorf("web configuration file %s: %w", path, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("web configuration file: %w", err)
	}
	var c web.Config
	if err := yaml.Unmarshal(text, &c); err != nil {
		return false, fmt.Errorf("web configuration file %s: %w", path, err)
	}
	return c.TLSConfig.IsEnabled(), nil
}
