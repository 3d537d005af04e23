// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
)

// A snapshot travels as a tar of the files below data/, followed by one more member, sumsMember, that lists the
// CRC-32C of each. Raft needs the exact size beforehand (a smaller one hangs, a larger one corrupts the
// connection), therefore that list has a fixed width and every header is made by tarHeader.
const sumsMember = "CRC32C"

const copyBuffer = 256 << 10

var errTrailing = errors.New("bytes after the end of the snapshot")

// snapshotReader is what SnapshotStore.Open returns. The FSM takes the files in dir by hard link; a follower that
// is too far behind gets the stream, made on the fly.
type snapshotReader struct {
	store *SnapshotStore
	meta  *snapshotMeta
	dir   string

	pipe    *io.PipeReader // set by the first Read
	writing sync.WaitGroup
	once    sync.Once
	err     error
}

// Read implements io.Reader.
func (r *snapshotReader) Read(p []byte) (int, error) {
	if r.pipe == nil {
		pr, pw := io.Pipe()
		r.pipe = pr
		r.writing.Go(func() { _ = pw.CloseWithError(writeStream(pw, r.dir, r.meta.Files)) })
	}
	return r.pipe.Read(p)
}

// Close ends the stream and unpins the snapshot. It may be called again.
func (r *snapshotReader) Close() error {
	r.once.Do(func() {
		if r.pipe != nil {
			_ = r.pipe.Close()
			r.writing.Wait()
		}
		r.err = r.store.unpin(r.meta.Raft.ID)
	})
	return r.err
}

func tarHeader(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatPAX}
}

func sumLine(sum uint32, f snapshotFile) string {
	return fmt.Sprintf("%08x %020d %s\n", sum, f.Size, f.Path)
}

// streamSize is the exact number of bytes that writeStream makes of files.
func streamSize(files []snapshotFile) (int64, error) {
	var total, sums int64
	add := func(name string, size int64) error {
		var head bytes.Buffer // longer than one block for long names and for 8 GiB and more
		err := tar.NewWriter(&head).WriteHeader(tarHeader(name, size))
		total += int64(head.Len()) + (size+511)/512*512
		return err
	}
	for _, f := range files {
		if err := add(f.Path, f.Size); err != nil {
			return 0, fmt.Errorf("%s: %w", f.Path, err)
		}
		sums += int64(len(sumLine(0, f)))
	}
	if err := add(sumsMember, sums); err != nil {
		return 0, err
	}
	return total + 1024, nil // a tar ends with two empty blocks
}

// writeStream sends files, which lie below dir.
func writeStream(w io.Writer, dir string, files []snapshotFile) error {
	tw := tar.NewWriter(w)
	var sums bytes.Buffer
	buf := make([]byte, copyBuffer)
	for _, f := range files {
		if err := tw.WriteHeader(tarHeader(f.Path, f.Size)); err != nil {
			return err
		}
		sum, err := sendFile(tw, filepath.Join(dir, filepath.FromSlash(f.Path)), f, buf)
		if err != nil {
			return err
		}
		sums.WriteString(sumLine(sum, f))
	}
	if err := tw.WriteHeader(tarHeader(sumsMember, int64(sums.Len()))); err != nil {
		return err
	}
	if _, err := tw.Write(sums.Bytes()); err != nil {
		return err
	}
	return tw.Close()
}

// sendFile writes one file and returns its checksum. A file that is not what the meta data says ends the stream.
func sendFile(w io.Writer, name string, f snapshotFile, buf []byte) (uint32, error) {
	in, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	sum := crc32.New(castagnoli)
	n, err := io.CopyBuffer(summing{w, sum}, onlyReader{io.LimitReader(in, f.Size)}, buf)
	if err != nil {
		return 0, err
	}
	if n != f.Size {
		return 0, fmt.Errorf("%s: %d bytes, want %d", name, n, f.Size)
	}
	if f.CRC != nil && *f.CRC != sum.Sum32() {
		return 0, fmt.Errorf("%s: wrong checksum, the file has rotted", name)
	}
	return sum.Sum32(), nil
}

// unpackSnapshot writes the files of a stream below dir, synced, and returns them once their checksums have been
// compared. What a stream may name is one new regular file after another below dir, nothing else.
func unpackSnapshot(r io.Reader, dir string) ([]snapshotFile, error) {
	tr := tar.NewReader(r)
	buf := make([]byte, copyBuffer)
	var files []snapshotFile
	var sums bytes.Buffer
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil, errors.New("stream ends without checksums")
		}
		if err != nil {
			return nil, err
		}
		if h.Name == sumsMember {
			got, err := io.ReadAll(io.LimitReader(tr, int64(sums.Len())+1))
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(got, sums.Bytes()) {
				return nil, errors.New("checksum mismatch")
			}
			_, end := tr.Next() // reads the two empty blocks, which Size counts too
			n, err := io.Copy(io.Discard, r)
			if err == nil && (end != io.EOF || n > 0) {
				err = errTrailing
			}
			return files, err
		}
		f, err := receiveFile(tr, h, dir, buf)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
		sums.WriteString(sumLine(*f.CRC, f))
	}
}

func receiveFile(tr io.Reader, h *tar.Header, dir string, buf []byte) (_ snapshotFile, err error) {
	if h.Typeflag != tar.TypeReg || !fs.ValidPath(h.Name) || h.Name == "." || path.Clean(h.Name) != h.Name {
		return snapshotFile{}, fmt.Errorf("bad member %q", h.Name)
	}
	name := filepath.Join(dir, filepath.FromSlash(h.Name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return snapshotFile{}, err
	}
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return snapshotFile{}, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sum := crc32.New(castagnoli)
	n, err := io.CopyBuffer(summing{out, sum}, onlyReader{tr}, buf)
	if err != nil {
		return snapshotFile{}, err
	}
	if n != h.Size {
		return snapshotFile{}, io.ErrUnexpectedEOF
	}
	crc := sum.Sum32()
	return snapshotFile{Path: h.Name, Size: n, CRC: &crc}, out.Sync()
}

// summing writes and adds up. Unlike io.MultiWriter it hides ReadFrom, so that io.CopyBuffer uses the buffer.
type summing struct {
	w   io.Writer
	sum hash.Hash32
}

// Write implements io.Writer.
func (s summing) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	_, _ = s.sum.Write(p[:n])
	return n, err
}

// onlyReader hides WriteTo, for the same reason.
type onlyReader struct{ io.Reader }
