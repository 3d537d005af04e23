// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// repeatEvery is how often one warning of a library is shown: raft complains twice a second about each peer that
// is down, for as long as it is down.
const repeatEvery = 10 * time.Second

// slogSink sends what HashiCorp's libraries log to slog.
type slogSink struct {
	logger *slog.Logger
	limit  *logLimiter
}

// newHCLog returns an hclog.Logger for raft and raft-wal that writes to logger.
func newHCLog(logger *slog.Logger, component string) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: component, Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(&slogSink{logger: logger.With("lib", component), limit: &logLimiter{}})
	return l
}

// Accept implements hclog.SinkAdapter.
func (s *slogSink) Accept(_ string, level hclog.Level, msg string, args ...any) {
	lv := slog.LevelDebug
	switch level {
	case hclog.Info:
		lv = slog.LevelInfo
	case hclog.Warn, hclog.Error:
		// Raft's errors are peers out of reach and connections that end. What needs a person is reported by the
		// guard, the watchdogs and Ready.
		lv = slog.LevelWarn
	}
	if expected(msg, args) {
		lv = slog.LevelDebug
	}
	if !s.logger.Enabled(context.Background(), lv) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	if lv >= slog.LevelWarn && !s.limit.allow(msg+fmt.Sprint(firstTwo(args)...)) {
		return
	}
	s.logger.Log(context.Background(), lv, msg, args...)
}

// expected tells whether Raft speaks of a snapshot that is offered again and again until its files have been fetched.
// Both nodes log the fetch themselves, with its progress.
func expected(msg string, args []any) bool {
	switch msg {
	case "opening snapshot", "installing snapshot on", "snapshot network transfer progress", "copied to local snapshot":
		return true
	}
	for _, a := range args {
		err, ok := a.(error)
		if !ok {
			continue
		}
		// The error of the other node comes as a text. The log that is not found is what begins it all.
		if strings.Contains(err.Error(), errCatchingUp.Error()) || msg == "failed to get log" && errors.Is(err, raft.ErrLogNotFound) {
			return true
		}
	}
	return false
}

// firstTwo is the key and value that tell one peer's complaint from another's.
func firstTwo(args []any) []any {
	if len(args) > 2 {
		return args[:2]
	}
	return args
}

// newMemberlistLog returns a standard logger that parses memberlist's level prefixes.
func newMemberlistLog(logger *slog.Logger) *log.Logger {
	return log.New(&levelWriter{logger: logger.With("lib", "memberlist"), limit: &logLimiter{}}, "", 0)
}

type levelWriter struct {
	logger *slog.Logger
	limit  *logLimiter
}

// Write implements io.Writer; log.Logger calls it once a line.
func (w *levelWriter) Write(p []byte) (int, error) {
	line := string(bytes.TrimSpace(p))
	level := slog.LevelDebug
	for prefix, l := range map[string]slog.Level{"[INFO] ": slog.LevelInfo, "[WARN] ": slog.LevelWarn, "[ERR] ": slog.LevelWarn} {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			line, level = rest, l
		}
	}
	line = strings.TrimPrefix(strings.TrimPrefix(line, "[DEBUG] "), "memberlist: ")
	if level < slog.LevelWarn || w.limit.allow(line) {
		w.logger.Log(context.Background(), level, line)
	}
	return len(p), nil
}

// logLimiter lets one key through every repeatEvery.
type logLimiter struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (l *logLimiter) allow(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.last[key]) < repeatEvery {
		return false
	}
	if l.last == nil || len(l.last) > 256 { // bounded: forgetting only shows a line twice
		l.last = make(map[string]time.Time)
	}
	l.last[key] = now
	return true
}
