// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package compare

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/deucaliondb/deucalion/test/local"
)

// profiles fetches a CPU profile of each server over d, while the load runs, into files of dir that are named
// after the roles. It returns at once; the function that it gives waits for the profiles.
func profiles(ctx context.Context, dir string, d time.Duration, servers map[string]*local.Server) func() error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // protects errs
		errs []error
	)
	for role, s := range servers {
		wg.Go(func() {
			if err := profile(ctx, dir, d, role, s); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("profile of %s: %w", role, err))
			}
		})
	}
	return func() error {
		wg.Wait()
		return errors.Join(errs...)
	}
}

func profile(ctx context.Context, dir string, d time.Duration, role string, s *local.Server) error {
	c := s.Client()
	defer c.Close()
	seconds := fmt.Sprint(max(int(d.Seconds()), 1))
	resp, err := c.Get(ctx, "/debug/pprof/profile", url.Values{"seconds": {seconds}})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := strings.NewReplacer(" ", "-", ",", "", "(", "", ")", "").Replace(role) + ".pprof"
	return os.WriteFile(filepath.Join(dir, name), resp.Body, 0o644)
}
