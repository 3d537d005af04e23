// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/deucaliondb/deucalion/test/local"
)

// ClockVariable names the environment variable with the path of a node's clock file: eight bytes, native order, the
// nanoseconds by which its wall clock is off. The process maps the file, so a write is a jump of the clock. Its
// monotonic clock goes on as before, as when somebody sets the time of a machine.
const ClockVariable = "DEUCALION_TEST_CLOCK"

// skewed is a file that package time of the program under test gets, besides a line in time.Now. A program that is
// linked statically asks the kernel's page for the time, which no preloaded library and no tracer can change.
const skewed = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var testClock = openTestClock()

func openTestClock() *int64 {
	path, ok := syscall.Getenv("` + ClockVariable + `")
	if !ok {
		return nil
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("` + ClockVariable + `: " + err.Error())
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("` + ClockVariable + `: " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&page[0]))
}

func testSkew(sec int64, nsec int32) (int64, int32) {
	if testClock == nil {
		return sec, nsec
	}
	ns := sec*1e9 + int64(nsec) + atomic.LoadInt64(testClock)
	return ns / 1e9, int32(ns % 1e9)
}
`

var errNow = errors.New("time.Now of this Go does not begin as expected")

// BuildSkewed compiles the binary under test with a clock that can be set off, into dir. With DEUCALION_BIN in the
// environment that is taken, and clock says that its clock cannot.
func BuildSkewed(ctx context.Context, dir string) (bin string, clock bool, err error) {
	if os.Getenv("DEUCALION_BIN") != "" {
		bin, err = local.Build(ctx, dir, "")
		return bin, false, err
	}
	overlay, err := overlayTime(ctx, dir)
	if err != nil {
		return "", false, err
	}
	bin, err = local.Build(ctx, dir, overlay)
	return bin, true, err
}

// overlayTime writes the file for go build -overlay.
func overlayTime(ctx context.Context, dir string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(source, "time.go"))
	if err != nil {
		return "", err
	}
	const head, now = "func Now() Time {\n", "\tsec, nsec, mono := runtimeNow()\n"
	changed := strings.Replace(string(text), head+now, head+now+"\tsec, nsec = testSkew(sec, nsec)\n", 1)
	if changed == string(text) {
		return "", errNow
	}
	replace := map[string]string{
		filepath.Join(source, "time.go"):      filepath.Join(dir, "time.go"),
		filepath.Join(source, "test_skew.go"): filepath.Join(dir, "test_skew.go"),
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, errors.Join(
		os.WriteFile(filepath.Join(dir, "time.go"), []byte(changed), 0o644),
		os.WriteFile(filepath.Join(dir, "test_skew.go"), []byte(skewed), 0o644),
		os.WriteFile(overlay, b, 0o644),
	)
}

// SetClock sets a node's clock off by d.
func (n *Node) SetClock(d time.Duration) error {
	f, err := os.OpenFile(n.Clock, os.O_WRONLY|os.O_CREATE, 0o644) // never truncated: it is mapped
	if err != nil {
		return err
	}
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], uint64(d.Nanoseconds()))
	_, err = f.WriteAt(b[:], 0)
	return errors.Join(err, f.Close())
}
