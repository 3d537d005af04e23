// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"os"
	"runtime"
	"runtime/debug"
	"time"

	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// runtimeInfo is /api/v1/status/runtimeinfo. The configuration is read once, at start.
func (a *API) runtimeInfo() (v1.RuntimeInfo, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return v1.RuntimeInfo{}, err
	}
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "<error retrieving current working directory>"
	}
	reloaded, at := true, a.birth
	if a.cfg.LastReload != nil {
		reloaded, at = a.cfg.LastReload()
	}
	return v1.RuntimeInfo{
		StartTime:           a.birth,
		CWD:                 cwd,
		Hostname:            hostname,
		ServerTime:          time.Now().UTC(),
		ReloadConfigSuccess: reloaded,
		LastConfigTime:      at,
		GoroutineCount:      runtime.NumGoroutine(),
		GOMAXPROCS:          runtime.GOMAXPROCS(0),
		GOMEMLIMIT:          debug.SetMemoryLimit(-1),
		GOGC:                os.Getenv("GOGC"),
		GODEBUG:             os.Getenv("GODEBUG"),
		StorageRetention:    a.cfg.Retention(),
	}, nil
}
