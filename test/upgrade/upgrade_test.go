// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/client"
)

// releases lists the archives without their suffix.
func releases(t *testing.T) []string {
	t.Helper()
	out, err := filepath.Glob("testdata/*.tar.gz")
	require.NoError(t, err)
	require.NotEmpty(t, out)
	for i := range out {
		out[i] = strings.TrimSuffix(out[i], ".tar.gz")
	}
	return out
}

// TestUpgrade starts this version on what each release has left behind after a kill -9.
func TestUpgrade(t *testing.T) {
	for _, release := range releases(t) {
		t.Run(filepath.Base(release), func(t *testing.T) {
			s := node(t)
			unpack(t, release, s.Dir)
			want := recorded(t, release)
			start(t, s)
			same(t, want, ask(t, s))

			// It takes writes, and all is there after a stop with a snapshot in this version's format.
			more := prompb.TimeSeries{Labels: client.Labels("__name__", "more"), Samples: []prompb.Sample{{Timestamp: base + 5*hour, Value: 7}}}
			send(t, s, &prompb.WriteRequest{Timeseries: []prompb.TimeSeries{more}})
			require.NoError(t, s.Stop())
			start(t, s)
			got := ask(t, s)
			require.Equal(t, 1, len(got.Data[`{__name__="more"}`]))
			delete(got.Data, `{__name__="more"}`)
			got.Digest = want.Digest
			same(t, want, got)
		})
	}
}

func same(t *testing.T, want, got answers) {
	t.Helper()
	require.Empty(t, client.Diff(want.Data, got.Data, 10))
	require.JSONEq(t, string(want.Metadata), string(got.Metadata))
	require.JSONEq(t, string(want.Exemplars), string(got.Exemplars))
	require.Equal(t, want.Digest, got.Digest, "two versions that compute it differently would take each other for damaged")
}

func recorded(t *testing.T, release string) (a answers) {
	t.Helper()
	b, err := os.ReadFile(release + ".json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &a))
	require.NotEmpty(t, a.Data)
	return a
}

// unpack fills the data directory dir.
func unpack(t *testing.T, release, dir string) {
	t.Helper()
	f, err := os.Open(release + ".tar.gz")
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		require.True(t, filepath.IsLocal(h.Name), h.Name)
		name := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			require.NoError(t, os.MkdirAll(name, 0o777))
		case tar.TypeLink:
			require.NoError(t, os.Link(filepath.Join(dir, h.Linkname), name))
		default:
			require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o777))
			writeSparse(t, name, r)
		}
	}
}

// writeSparse leaves out the zeros of which a preallocated log file is full.
func writeSparse(t *testing.T, name string, r io.Reader) {
	t.Helper()
	f, err := os.Create(name)
	require.NoError(t, err)
	defer f.Close()
	buf, size := make([]byte, 64<<10), int64(0)
	for {
		n, err := io.ReadFull(r, buf)
		if strings.Trim(string(buf[:n]), "\x00") != "" {
			_, err := f.WriteAt(buf[:n], size)
			require.NoError(t, err)
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		require.NoError(t, err)
	}
	require.NoError(t, f.Truncate(size))
}
