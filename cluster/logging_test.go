// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
)

// What Raft says of a snapshot that is being fetched is no complaint, on neither side; any other failure is.
func TestExpectedRefusalIsNoWarning(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
	l := newHCLog(logger, "raft")
	refusal := fmt.Errorf("%w: 2-7-100 of node a", errCatchingUp)
	l.Info("opening snapshot", "id", "2-7-100")
	l.Error("failed to get log", "index", 5, "error", raft.ErrLogNotFound)
	l.Error("failed to finalize snapshot", "error", refusal)
	l.Error("failed to install snapshot", "peer", "b", "id", "2-7-100", "error", errors.New(refusal.Error()))
	l.Error("failed to send snapshot to", "peer", raft.Server{ID: "b"}, "error", errors.New(refusal.Error()))
	require.Empty(t, out.String())

	l.Error("failed to install snapshot", "peer", "b", "id", "2-7-100", "error", errors.New("connection refused"))
	l.Error("failed to finalize snapshot", "error", errBadOffer)
	l.Error("failed to get log", "index", 5, "error", errors.New("disk"))
	require.Equal(t, 3, bytes.Count(out.Bytes(), []byte("level=WARN")), out.String())
}
