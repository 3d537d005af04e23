// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime/debug"
	"strconv"
)

// applyRuntime puts the runtime section of the configuration in force. The level of the command line counts while the
// file has none. Like Prometheus, GOGC is 75 unless the environment or the file say otherwise, and is shown in the
// environment for /api/v1/status/runtimeinfo.
func (c *configuration) applyRuntime(o *options) error {
	level := c.logLevel
	if level == "" {
		level = o.logLevel
	}
	if err := o.log.Level.Set(level); err != nil {
		return err
	}
	percent := c.file.Runtime.GoGC
	debug.SetGCPercent(percent)
	if percent < 0 {
		return os.Setenv("GOGC", "off")
	}
	return os.Setenv("GOGC", strconv.Itoa(percent))
}
