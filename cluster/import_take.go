// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/deucaliondb/deucalion/fsm"
	"github.com/deucaliondb/deucalion/storage"
)

const (
	maxImportBlocks = 1024
	// maxImportFiles bounds the files of an import: 512 MiB each, mostly.
	maxImportFiles = 1 << 16
)

// blockFile is what may be in a tar: the files of a block, below any directory. The block is the directory.
var blockFile = regexp.MustCompile(`^(.*/|)(meta\.json|index|tombstones|chunks/[0-9]{6})$`)

// take makes x.Blocks of the blocks in the tar.
func (m *imports) take(ctx context.Context, x *fsm.Import, tarball io.Reader) (*ImportReport, error) {
	up := m.path(x.ID) + uploadSuffix
	defer func() {
		if err := os.RemoveAll(up); err != nil {
			m.logger.Error("Cannot remove what was uploaded", "dir", up, "err", err)
		}
	}()
	n, err := m.unpack(ctx, up, tarball)
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(m.path(x.ID), 0o755); err != nil {
		return nil, err
	}
	sure, never := m.node.Newest()
	r := &ImportReport{}
	for i := range n {
		src := filepath.Join(up, strconv.Itoa(i))
		p, err := m.prepare(ctx, src, m.path(x.ID), never)
		if errors.Is(err, storage.ErrImport) {
			return nil, fmt.Errorf("%w: %w", ErrImportRefused, err)
		}
		if err != nil {
			return nil, err
		}
		if p.MaxTime-1 > sure.UnixMilli() {
			return nil, fmt.Errorf("%w, and block %s is in the future by one of the clocks: try again, or another node", ErrClockOff, p.ULID)
		}
		x.Blocks = append(x.Blocks, p.BlockFiles)
		r.Samples += p.Samples
		r.Blocks = append(r.Blocks, ImportedBlock{p.ULID.String(), p.MinTime, p.MaxTime, p.Series, p.Samples})
		if name, ls := externalLabels(src); !ls.IsEmpty() {
			r.Warnings = append(r.Warnings, fmt.Sprintf("block %s: its series do not get the external labels %s that Thanos has noted", name, ls))
			m.logger.Warn("The series of an imported block do not get the external labels that Thanos has noted", "id", x.ID, "block", name, "labels", ls)
		}
	}
	return r, m.finish(*x)
}

// prepare takes the panics that TSDB has for some broken files as refusals, so that nothing is left behind.
func (m *imports) prepare(ctx context.Context, src, dst string, never time.Time) (p storage.Prepared, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", storage.ErrImport, r)
		}
	}()
	return m.node.fsm.PrepareImport(ctx, src, dst, never.UnixMilli())
}

// externalLabels are those that Thanos keeps beside the series of a block, which it names. A file that does not tell has
// none.
func externalLabels(dir string) (block string, ls labels.Labels) {
	var meta struct {
		ULID   string
		Thanos struct{ Labels map[string]string }
	}
	b, err := os.ReadFile(filepath.Join(dir, "meta.json"))
	if err != nil || json.Unmarshal(b, &meta) != nil {
		return "", labels.EmptyLabels()
	}
	return meta.ULID, labels.FromMap(meta.Thanos.Labels)
}

// unpack puts the n blocks of the tar into directories named 0 to n-1.
func (m *imports) unpack(ctx context.Context, dir string, tarball io.Reader) (n int, err error) {
	blocks := map[string]int{}
	in := tar.NewReader(wholeTar{tarball})
	for files := 0; ; {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, errTarCut
		}
		if err := errors.Join(err, ctx.Err()); err != nil {
			return 0, fmt.Errorf("%w: read tar: %w", ErrImportRefused, err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		name := path.Clean(h.Name)
		parts := blockFile.FindStringSubmatch(name)
		if h.Typeflag != tar.TypeReg || parts == nil || !filepath.IsLocal(filepath.FromSlash(name)) {
			return 0, fmt.Errorf("%w: %q is not a file of a block", ErrImportRefused, h.Name)
		}
		k, known := blocks[parts[1]]
		if !known {
			k = len(blocks)
			blocks[parts[1]] = k
		}
		if files++; files > maxImportFiles || len(blocks) > maxImportBlocks {
			return 0, fmt.Errorf("%w: more than %d blocks or %d files", ErrImportRefused, maxImportBlocks, maxImportFiles)
		}
		if err := m.room(2 * min(h.Size, math.MaxInt64/4)); err != nil { // it is written anew; a hole in a tar has any size
			return 0, err
		}
		if err := unpackFile(filepath.Join(dir, strconv.Itoa(k), filepath.FromSlash(parts[2])), in, h.Size); err != nil {
			return 0, err
		}
	}
	if _, err := io.Copy(io.Discard, tarball); err != nil { // what tar pads to a whole record
		return 0, fmt.Errorf("%w: read tar: %w", ErrImportRefused, err)
	}
	if len(blocks) == 0 {
		return 0, fmt.Errorf("%w: no block in the tar", ErrImportRefused)
	}
	return len(blocks), nil
}

var errTarCut = fmt.Errorf("%w: the tar is cut off", ErrImportRefused)

// wholeTar makes the end of the stream an error for a tar.Reader. A tar ends with two blocks of zeros, after which that
// reads no more; but it takes a stream that ends between two files, or in their padding, for a whole tar, too.
type wholeTar struct{ r io.Reader }

func (w wholeTar) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != io.EOF {
		return n, err
	}
	if n > 0 {
		return n, nil
	}
	return 0, io.ErrUnexpectedEOF
}

func unpackFile(name string, in io.Reader, size int64) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: %s is twice in the tar", ErrImportRefused, filepath.Base(name))
	}
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, in, size)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errTarCut
	}
	return errors.Join(err, f.Close())
}

// room tells whether bytes more may be put on this disk.
func (m *imports) room(bytes int64) error {
	free, err := m.node.disk.statfs(m.dir)
	if err != nil {
		return nil // where it cannot be told, the disk's watcher warns
	}
	if want := bytes + m.node.disk.min; free < want {
		return fmt.Errorf("%w: %d bytes free, the import needs %d", ErrDiskFull, free, want)
	}
	return nil
}
