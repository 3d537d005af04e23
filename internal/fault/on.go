// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

//go:build faults

package fault

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled tells whether this build has crash points.
const Enabled = true

// armed is what one point shall do at its nth visit.
type armed struct {
	kill  bool
	sleep time.Duration
	nth   int
	seen  int
}

// points reads the environment once. The variable is the whole interface, so there is nothing to pass around.
var points = sync.OnceValue(func() map[Name]*armed {
	out := map[Name]*armed{}
	spec := os.Getenv("DEUCALION_FAULT")
	if spec == "" {
		return out
	}
	for _, item := range strings.Split(spec, ",") {
		name, a, err := parse(item)
		if err != nil {
			fmt.Fprintf(os.Stderr, "DEUCALION_FAULT: %v\n", err)
			os.Exit(2)
		}
		out[name] = a
	}
	return out
})

var mu sync.Mutex // protects armed.seen

func parse(item string) (Name, *armed, error) {
	name, action, ok := strings.Cut(item, "=")
	if !ok || !slices.Contains(All(), Name(name)) {
		return "", nil, fmt.Errorf("%q: want one of %v, then =kill or =sleep:DURATION, then maybe @N", item, All())
	}
	a := &armed{nth: 1}
	action, nth, counted := strings.Cut(action, "@")
	if counted {
		n, err := strconv.Atoi(nth)
		if err != nil || n < 1 {
			return "", nil, fmt.Errorf("%q: @%s is no count", item, nth)
		}
		a.nth = n
	}
	if action == "kill" {
		a.kill = true
		return Name(name), a, nil
	}
	d, ok := strings.CutPrefix(action, "sleep:")
	var err error
	if a.sleep, err = time.ParseDuration(d); !ok || err != nil {
		return "", nil, fmt.Errorf("%q: unknown action", item)
	}
	return Name(name), a, nil
}

// Point does what the environment asks for at this point.
func Point(n Name) {
	a := points()[n]
	if a == nil {
		return
	}
	mu.Lock()
	a.seen++
	hit := a.seen == a.nth
	mu.Unlock()
	if !hit {
		return
	}
	fmt.Fprintf(os.Stderr, "fault point %s reached\n", n)
	if a.kill {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal arrives
	}
	time.Sleep(a.sleep)
}
