// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/oklog/ulid/v2"

	"github.com/deucaliondb/deucalion/cluster"
)

// runImport is deucalion import: it sends the blocks of a directory to a node.
func runImport(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	var code *int
	app := kingpin.New("deucalion import", "Import blocks, as promtool tsdb create-blocks-from and Thanos make them, into a cluster. "+
		"Samples that are there already stay as they are. The server must run with --web.enable-admin-api.").UsageWriter(stdout).ErrorWriter(stderr)
	app.HelpFlag.Short('h')
	app.Terminate(func(c int) { code = &c })
	base := app.Flag("url", "Address of any node.").Default("http://localhost:9090").URL()
	dir := app.Arg("dir", "A block, or a directory of blocks.").Required().ExistingDir()
	_, err := app.Parse(args)
	if code != nil { // --help, after which the library goes on to miss the argument
		return *code
	}
	if err != nil {
		fmt.Fprintf(stderr, "Error parsing command line arguments: %s\n", err)
		return 2
	}
	report, err := sendBlocks(ctx, *base, *dir, stderr)
	if err != nil {
		fmt.Fprintf(stderr, "Error importing blocks: %s\n", err)
		return 1
	}
	for _, w := range report.Warnings {
		fmt.Fprintf(stderr, "warning: %s\n", w)
	}
	for _, b := range report.Blocks {
		fmt.Fprintf(stdout, "%s  %s to %s  %d series  %d samples\n", b.ULID, readable(b.MinTime), readable(b.MaxTime), b.Series, b.Samples)
	}
	fmt.Fprintf(stdout, "imported at log index %d: %d samples, of them %d were there already\n", report.Index, report.Samples, report.Duplicates)
	return 0
}

func readable(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// importFile is one file of the tar.
type importFile struct {
	name string // in the tar
	file string
	size int64
}

// blockFiles lists the files of the block in dir, or of the blocks right below it, oldest block first. Other files are
// left out.
func blockFiles(dir string) (files []importFile, bytes int64, err error) {
	dirs := []string{"."}
	if _, err := os.Stat(filepath.Join(dir, "meta.json")); errors.Is(err, fs.ErrNotExist) {
		dirs = nil
		es, err := os.ReadDir(dir) // sorted, and the names of blocks sort by age
		if err != nil {
			return nil, 0, err
		}
		for _, e := range es {
			if _, err := ulid.ParseStrict(e.Name()); err == nil && e.IsDir() {
				dirs = append(dirs, e.Name())
			}
		}
	}
	for _, d := range dirs {
		for _, pattern := range []string{"meta.json", "index", "tombstones", "chunks/[0-9][0-9][0-9][0-9][0-9][0-9]"} {
			names, err := fs.Glob(os.DirFS(dir), path.Join(d, pattern))
			if err != nil {
				return nil, 0, err
			}
			for _, name := range names {
				f := importFile{name: name, file: filepath.Join(dir, filepath.FromSlash(name))}
				info, err := os.Stat(f.file)
				if err != nil {
					return nil, 0, err
				}
				f.size = info.Size()
				bytes += f.size
				files = append(files, f)
			}
		}
	}
	if len(files) == 0 {
		return nil, 0, fmt.Errorf("no blocks in %s", dir)
	}
	return files, bytes, nil
}

func sendBlocks(ctx context.Context, base *url.URL, dir string, progress io.Writer) (*cluster.ImportReport, error) {
	files, bytes, err := blockFiles(dir)
	if err != nil {
		return nil, err
	}
	out, in := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		_ = in.CloseWithError(packBlocks(in, files, &meter{out: progress, total: bytes})) // never fails
	}()
	defer func() {
		_ = out.Close() // ends the packing, if the server has not read all
		<-packed
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base.JoinPath("api/v1/admin/tsdb/import").String(), out)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-tar")
	return send[cluster.ImportReport](req)
}

func packBlocks(w io.Writer, files []importFile, m *meter) error {
	t := tar.NewWriter(w)
	for _, x := range files {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: x.name, Size: x.size, Mode: 0o644}); err != nil {
			return err
		}
		f, err := os.Open(x.file)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.MultiWriter(t, m), f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	m.end()
	return t.Close()
}

// meter shows how much has been sent, in whole percents.
type meter struct {
	out         io.Writer
	total, sent int64
	shown       int64
}

// Write implements io.Writer.
func (m *meter) Write(p []byte) (int, error) {
	m.sent += int64(len(p))
	if now := 100 * m.sent / max(m.total, 1); now != m.shown {
		m.shown = now
		fmt.Fprintf(m.out, "\rsent %3d%% of %.1f MiB", now, float64(m.total)/(1<<20))
	}
	return len(p), nil
}

func (m *meter) end() { fmt.Fprintln(m.out, "\nchecking the blocks and giving them to all nodes") }
