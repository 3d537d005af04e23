// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package netns_test

import (
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/netns"
)

// Two hosts and the test reach each other, until one is unplugged, and again when it is back.
func TestUnplug(t *testing.T) {
	if err := netns.Check(); err != nil {
		t.Skip(err)
	}
	w, err := netns.New(255, 2)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })

	_, err = netns.New(255, 1)
	require.ErrorContains(t, err, "in use")
	listener, err := net.Listen("tcp", w.Addr+":0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	reaches := func(h *netns.Host, within time.Duration) bool {
		args := append(h.Command()[1:], "bash", "-c", "exec 3<>/dev/tcp/"+w.Addr+"/"+port)
		cmd := exec.CommandContext(t.Context(), h.Command()[0], args...)
		require.NoError(t, cmd.Start())
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			return err == nil
		case <-time.After(within):
			_ = cmd.Process.Kill()
			<-done
			return false
		}
	}
	for _, h := range w.Hosts {
		require.True(t, reaches(h, 30*time.Second), h.Addr)
	}
	require.NoError(t, w.Hosts[0].Unplug())
	require.False(t, reaches(w.Hosts[0], 2*time.Second))
	require.True(t, reaches(w.Hosts[1], 30*time.Second))
	require.NoError(t, w.Hosts[0].Plug())
	require.Eventually(t, func() bool { return reaches(w.Hosts[0], 30*time.Second) }, time.Minute, 100*time.Millisecond)
}
