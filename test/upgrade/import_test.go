// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package upgrade_test

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/local"
)

// imports brings a block, in which a series has a sample a minute, from the minute on (base is 0).
func imports(t *testing.T, s *local.Server, name string, from int64) {
	t.Helper()
	const samples = 100
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, 2*hour)
	require.NoError(t, err)
	defer w.Close()
	app := w.Appender(t.Context())
	for i := range int64(samples) {
		_, err := app.Append(0, labels.FromStrings("__name__", name, "job", "import"), base+(from+i)*60_000, float64(i))
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())
	_, err = w.Flush(t.Context())
	require.NoError(t, err)
	out, err := exec.CommandContext(t.Context(), os.Getenv("DEUCALION_BIN"), "import", "--url=http://"+s.Addr, dir).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), fmt.Sprintf("%d samples, of them 0 were there already", samples))
}
