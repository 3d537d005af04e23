// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/internal/filetest"
	"github.com/deucaliondb/deucalion/test/local"
)

// A later version may have written each of these. This one must end, say why, and leave the data alone: with the
// patch undone, all is there.
func TestNewerDataAreRefused(t *testing.T) {
	all := releases(t)
	release := all[len(all)-1]
	for name, tc := range map[string]struct {
		patch func(*testing.T, string)
		says  string
	}{
		"snapshot format": {func(t *testing.T, data string) {
			filetest.Reseal(t, filepath.Join(data, "manifest.json"), func(m map[string]any) { m["version"] = 9 })
		}, "format version 9"},
		"level": {raiseLevel, fmt.Sprintf("needs version level 9, this binary knows %d: upgrade", fsm.Level)},
	} {
		t.Run(name, func(t *testing.T) {
			s := node(t)
			unpack(t, release, s.Dir)
			data := snapshots(t, s.Dir)
			require.NotEmpty(t, data)
			before := files(t, filepath.Join(s.Dir, "snapshots-raft"))
			for _, d := range data {
				tc.patch(t, d)
			}
			patched := files(t, filepath.Join(s.Dir, "snapshots-raft"))
			require.NotEqual(t, before, patched)
			for range 2 {
				refused(t, s, tc.says)
			}
			require.Equal(t, patched, files(t, filepath.Join(s.Dir, "snapshots-raft")), "nothing is changed or set aside")
			for name, b := range before {
				require.NoError(t, os.WriteFile(filepath.Join(s.Dir, "snapshots-raft", name), []byte(b), 0o666))
			}
			start(t, s)
			same(t, recorded(t, release), ask(t, s))
		})
	}
}

// An entry of a later version, as a later leader might have put it into the log.
func TestNewerEntryIsRefused(t *testing.T) {
	entry := fsm.EncodeNoop()
	unknown := fsm.EncodeNoop()
	entry[0]++
	unknown[1] = 200
	for name, tc := range map[string]struct {
		entry []byte
		says  string
	}{
		"format": {entry, "format version 2"},
		"kind":   {unknown, "kind 200"},
	} {
		t.Run(name, func(t *testing.T) {
			body := tc.entry[:len(tc.entry)-4]
			sealed := binary.LittleEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, castagnoli))
			s := node(t)
			start(t, s)
			write(t, s, 0, 10)
			require.NoError(t, s.Stop())
			before := files(t, filepath.Join(s.Dir, "snapshots-raft"))
			start(t, s)
			propose(t, s, sealed)
			ended(t, s, tc.says)
			refused(t, s, tc.says) // replayed, it is as unknown as before
			require.Equal(t, before, files(t, filepath.Join(s.Dir, "snapshots-raft")))
		})
	}
}

// refused starts s, which must end by itself.
func refused(t *testing.T, s *local.Server, says string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(s.Log))
	require.NoError(t, s.Start())
	ended(t, s, says)
}

func ended(t *testing.T, s *local.Server, says string) {
	t.Helper()
	select {
	case <-s.Process().Done():
	case <-time.After(deadline):
		t.Fatal("it goes on")
	}
	_, err := s.Process().Exited()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode())
	log, err := os.ReadFile(s.Log)
	require.NoError(t, err)
	require.Contains(t, string(log), says)
	require.NotContains(t, string(log), "damaged")
}

// snapshots lists the directories of Raft snapshots that hold a manifest.
func snapshots(t *testing.T, dir string) []string {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(dir, "snapshots-raft", "*", "data"))
	require.NoError(t, err)
	return out
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		out[p] = string(b)
		return err
	}))
	require.NotEmpty(t, slices.Collect(maps.Keys(out)))
	return out
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// raiseLevel changes the settings in the state file, whose first section is JSON.
func raiseLevel(t *testing.T, data string) {
	t.Helper()
	name := filepath.Join(data, "state")
	b, err := os.ReadFile(name)
	require.NoError(t, err)
	before, after, found := strings.Cut(string(b), `"min_version":`)
	require.True(t, found)
	state := []byte(before + `"min_version":9` + after[1:])
	require.NoError(t, os.Remove(name)) // it may be hard-linked
	require.NoError(t, os.WriteFile(name, state, 0o666))
	filetest.Reseal(t, filepath.Join(data, "manifest.json"), func(m map[string]any) {
		m["state"].(map[string]any)["crc32c"] = crc32.Checksum(state, castagnoli)
	})
}

// propose forwards an entry to s as another node would.
func propose(t *testing.T, s *local.Server, entry []byte) {
	t.Helper()
	c := s.Client()
	defer c.Close()
	var status struct {
		Nodes []struct {
			Address string `json:"raft_address"`
		} `json:"nodes"`
	}
	require.NoError(t, c.Data(t.Context(), "/api/v1/cluster", nil, &status))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		if err == nil {
			_, err = conn.Write([]byte{'H'})
		}
		return conn, err
	}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+status.Nodes[0].Address+"/cluster/v1/propose", bytes.NewReader(entry))
	require.NoError(t, err)
	req.Header.Set("X-Deucalion-To", "*")
	if resp, err := transport.RoundTrip(req); err == nil { // the node may end before it answers
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}
