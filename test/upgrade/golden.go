// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package upgrade

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/deucaliondb/deucalion/test/client"
)

// Answers are what a node says about its data.
type Answers struct {
	Data      client.Data     `json:"data"`
	Metadata  json.RawMessage `json:"metadata"`
	Exemplars json.RawMessage `json:"exemplars"`
	Digest    string          `json:"digest"` // of all samples
	// Unshipped is a metric that no remote store has got yet. "" if the node shipped to none.
	Unshipped string `json:"unshipped,omitempty"`
}

// Releases lists the archives below testdata, the oldest first, without their suffix: names sort as versions do.
func Releases(testdata string) ([]string, error) {
	out, err := filepath.Glob(filepath.Join(testdata, "*.tar.gz"))
	for i := range out {
		out[i] = strings.TrimSuffix(out[i], ".tar.gz")
	}
	slices.Sort(out) // without it, as "v0.1" comes before "v0.1-later"
	return out, err
}

// Recorded are the answers of the node whose data a release is.
func Recorded(release string) (a Answers, err error) {
	b, err := os.ReadFile(release + ".json")
	if err != nil {
		return a, err
	}
	return a, json.Unmarshal(b, &a)
}

// Unpack fills the data directory dir. The node's id is n1.
func Unpack(release, dir string) error {
	f, err := os.Open(release + ".tar.gz")
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = unpackOne(dir, h, r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", release, err)
		}
	}
}

func unpackOne(dir string, h *tar.Header, r io.Reader) error {
	if !filepath.IsLocal(h.Name) {
		return fmt.Errorf("%s: not below the archive", h.Name)
	}
	name := filepath.Join(dir, h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(name, 0o777)
	case tar.TypeLink:
		return os.Link(filepath.Join(dir, h.Linkname), name)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	return writeSparse(name, r)
}

// writeSparse leaves out the zeros of which a preallocated log file is full.
func writeSparse(name string, r io.Reader) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	buf, size := make([]byte, 64<<10), int64(0)
	for {
		n, err := io.ReadFull(r, buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			if _, err := f.WriteAt(buf[:n], size); err != nil {
				return err
			}
		}
		size += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return f.Truncate(size)
		}
		if err != nil {
			return err
		}
	}
}
