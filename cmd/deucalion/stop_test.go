// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What hangs when the node stops takes no time from the rest, and its error is told.
func TestStoppersHaveTheirOwnTime(t *testing.T) {
	var n node
	var order []string
	n.onStop(time.Minute, func(ctx context.Context) error {
		order = append(order, "first")
		return ctx.Err()
	})
	n.onStop(time.Millisecond, func(ctx context.Context) error {
		order = append(order, "second")
		<-ctx.Done()
		return errors.New("hung")
	})
	require.EqualError(t, n.stopDuties(), "hung")
	require.Equal(t, []string{"second", "first"}, order)
}
