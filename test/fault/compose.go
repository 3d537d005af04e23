// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// What keeps the project apart from a user's: its name and its addresses.
const (
	composeName       = "deucalion-fault"
	composeVersion    = "fault" // of the image of the nodes
	composeClusterNet = "172.30.92"
	composeClientNet  = "172.30.93"
	composeBind       = "127.0.0.92"
)

// composeTimeout bounds what is done to the project as a whole.
const composeTimeout = 10 * time.Minute

// ComposeOptions say how NewCompose starts deploy/compose.
type ComposeOptions struct {
	// Dir is where volumes, generated files and at the end the logs lie. It is made if it is missing.
	Dir string
	// Config is the Prometheus configuration of the nodes; "" leaves them the one of deploy/compose.
	Config string
	// Rules is a rule file of the nodes, /etc/prometheus/rules/fault.yml to them; it goes with a Config.
	Rules string
	// Flags are added to the command of each node.
	Flags []string
}

// Compose is deploy/compose in a Docker Engine: the user's own file, under an override that gives each node a small disk
// of its own and takes what surrounds the nodes from the packages of Debian. Grafana, which Debian does not have, is not
// started. It takes root, and there can be one on a machine.
type Compose struct {
	o       ComposeOptions
	docker  docker
	root    string // of the repository
	project *types.Project
	system  *System
	ids     map[string]string // service -> container
}

// Configure puts other files into the place of those that Config and Rules of the options have made, as editors do;
// Config may not have been "". The nodes take them up at a reload.
func (c *Compose) Configure(config, rules string) error {
	dir := c.path("prometheus")
	return errors.Join(
		replaceFile(filepath.Join(dir, "prometheus.yml"), config),
		replaceFile(filepath.Join(dir, "rules", "fault.yml"), rules),
	)
}

// NewCompose removes what an earlier run has left behind and starts the containers; it does not wait until the nodes are
// ready. Nothing is left when it fails.
func NewCompose(ctx context.Context, o ComposeOptions) (*Compose, error) {
	ctx, cancel := context.WithTimeout(ctx, composeTimeout)
	defer cancel()
	c := &Compose{o: o, docker: docker{env: []string{
		"COMPOSE_PROJECT_NAME=" + composeName,
		"DEUCALION_VERSION=" + composeVersion, "DEUCALION_TARGET=prebuilt", "DEUCALION_BIND=" + composeBind,
		"DEUCALION_CLUSTER_NET=" + composeClusterNet, "DEUCALION_CLIENT_NET=" + composeClientNet,
		"DOCKER_BUILDKIT=0", "COMPOSE_DOCKER_CLI_BUILD=0",
	}}}
	if _, err := c.docker.run(ctx, "docker", "version"); err != nil {
		return nil, fmt.Errorf("compose: %w", err)
	}
	if err := c.load(ctx); err != nil {
		return nil, fmt.Errorf("compose: %w", err)
	}
	if err := c.remove(ctx); err != nil {
		return nil, fmt.Errorf("compose: leftovers: %w", err)
	}
	if err := c.up(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("compose: %w", err), c.Close())
	}
	return c, nil
}

func (c *Compose) up(ctx context.Context) error {
	if err := c.write(ctx); err != nil {
		return err
	}
	for _, s := range c.nodes() {
		if err := mountDisk(ctx, c.disk(s.Name)); err != nil {
			return err
		}
	}
	if err := freeNetworks(ctx); err != nil {
		return err
	}
	if _, err := c.docker.run(ctx, "make", "-C", c.root, "image-root", "VERSION="+composeVersion); err != nil {
		return err
	}
	args := []string{"--file", c.file(), "--file", c.path("override.json"), "up", "--detach", "--build"}
	if _, err := c.docker.compose(ctx, append(args, c.services()...)...); err != nil {
		return err
	}
	var err error
	if c.ids, err = c.docker.containers(ctx); err != nil {
		return err
	}
	c.system, err = c.describe(ctx)
	return err
}

// describe makes the System of the running containers.
func (c *Compose) describe(ctx context.Context) (*System, error) {
	balancer, err := c.docker.inspect(ctx, c.ids["haproxy"])
	if err != nil {
		return nil, err
	}
	at := balancer.NetworkSettings.Networks[c.project.Networks["client"].Name]
	if at.IPAddress == "" || at.Gateway == "" {
		return nil, fmt.Errorf("haproxy: %w", errUnplugged)
	}
	s := &System{Name: "compose", Cluster: true, Listen: at.Gateway, Balancer: "http://" + at.IPAddress + ":9090"}
	for _, service := range c.nodes() {
		s.Nodes = append(s.Nodes, c.node(service))
	}
	return s, nil
}

// System is what faults are done to.
func (c *Compose) System() *System { return c.system }

// Addr is the IP address of a service, such as alertmanager, on the network of the clients.
func (c *Compose) Addr(ctx context.Context, service string) (string, error) {
	state, err := c.docker.inspect(ctx, c.ids[service])
	if err != nil {
		return "", err
	}
	ip := state.NetworkSettings.Networks[c.project.Networks["client"].Name].IPAddress
	if ip == "" {
		return "", fmt.Errorf("%s: %w", service, errUnplugged)
	}
	return ip, nil
}

// Logs is the last lines of each container's output, at most n of each.
func (c *Compose) Logs(n int) string {
	ctx, cancel := context.WithTimeout(context.Background(), composeTimeout)
	defer cancel()
	ids, err := c.docker.containers(ctx) // they may be others than at the start
	if err != nil {
		return err.Error()
	}
	var out strings.Builder
	for _, service := range slices.Sorted(maps.Keys(ids)) {
		text, err := c.docker.call("logs", "--tail", fmt.Sprint(n), ids[service])
		if err != nil {
			text = err.Error()
		}
		fmt.Fprintf(&out, "== %s\n%s\n", service, text)
	}
	return out.String()
}

// Close saves the output of the containers as SERVICE.log in the work directory and removes the containers, networks,
// volumes, images and disks.
func (c *Compose) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), composeTimeout)
	defer cancel()
	ids, err := c.docker.containers(ctx)
	errs := []error{err}
	for service, id := range ids {
		text, err := c.docker.run(ctx, "docker", "logs", id)
		if err == nil {
			err = os.WriteFile(c.path(service+".log"), []byte(text), 0o644)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, c.remove(ctx))...)
}

// remove takes the project down, this one or that of an earlier process.
func (c *Compose) remove(ctx context.Context) error {
	_, err := c.docker.compose(ctx, "--file", c.file(), "down", "--volumes", "--remove-orphans", "--timeout", "5")
	// The disks of containers that are still there are in use, and are unmounted all the same.
	return errors.Join(err, c.docker.removeImages(ctx, c.images()...), unmountDisks(ctx))
}

// file is the Compose file that is tested, path a file of the work directory, and disk where the volume of a node is.
func (c *Compose) file() string            { return filepath.Join(c.root, "deploy", "compose", "compose.yaml") }
func (c *Compose) path(name string) string { return filepath.Join(c.o.Dir, name) }
func (c *Compose) disk(node string) string { return c.path(node) }
