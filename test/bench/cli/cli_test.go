// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"

	"github.com/deucaliondb/deucalion/test/bench/cli"
)

func TestLoadCommand(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer srv.Close()
	app := kingpin.New("bench", "")
	commands := cli.Register(app)
	name, err := app.Parse([]string{
		"load", "--url=" + srv.URL, "--series=100", "--batch=50", "--duration=0s", "--rounds=3",
		"--pid=me=" + strconv.Itoa(os.Getpid()), "--dir=me=" + t.TempDir(),
	})
	require.NoError(t, err)
	var out strings.Builder
	require.NoError(t, commands[name](t.Context(), &out))
	require.Contains(t, out.String(), "acknowledged  300 samples in 6 requests")
	require.Contains(t, out.String(), "\nme ")
}

// As a subcommand of another program the commands keep working under their full names.
func TestRegisterBelowACommand(t *testing.T) {
	app := kingpin.New("deucalion", "")
	commands := cli.Register(app.Command("bench", ""))
	for _, name := range []string{"bench load", "bench compare", "bench restart", "bench catchup"} {
		require.Contains(t, commands, name)
	}
}
