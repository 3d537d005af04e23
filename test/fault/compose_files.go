// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	composecli "github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

var (
	errNoNodes = errors.New("no nodes in the Compose file")
	errInUse   = errors.New("address in use")
)

// override is a Compose file over the user's.
type override struct {
	Services map[string]serviceOverride `json:"services"`
	Volumes  map[string]volumeOverride  `json:"volumes"`
}

type serviceOverride struct {
	Image      string            `json:"image,omitempty"`
	Build      map[string]string `json:"build,omitempty"`
	User       string            `json:"user,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Command    []string          `json:"command,omitempty"`
	Volumes    []string          `json:"volumes,omitempty"`
}

type volumeOverride struct {
	Driver  string            `json:"driver"`
	Options map[string]string `json:"driver_opts"`
}

// load reads the user's file as Compose will.
func (c *Compose) load(ctx context.Context) error {
	var err error
	if c.root, err = moduleRoot(ctx); err != nil {
		return err
	}
	if c.o.Dir, err = filepath.Abs(c.o.Dir); err != nil {
		return err
	}
	o, err := composecli.NewProjectOptions([]string{c.file()}, composecli.WithName(composeName), composecli.WithEnv(c.docker.env))
	if err != nil {
		return err
	}
	if c.project, err = o.LoadProject(ctx); err != nil {
		return err
	}
	if len(c.nodes()) == 0 {
		return errNoNodes
	}
	return nil
}

// nodes are the services of the image that this repository builds, by name.
func (c *Compose) nodes() []types.ServiceConfig {
	var out []types.ServiceConfig
	for _, name := range slices.Sorted(maps.Keys(c.project.Services)) {
		if s := c.project.Services[name]; s.Build != nil {
			out = append(out, s)
		}
	}
	return out
}

// services are those that are started: the nodes and what Debian has.
func (c *Compose) services() []string {
	out := slices.Sorted(maps.Keys(debianServices))
	for _, s := range c.nodes() {
		out = append(out, s.Name)
	}
	return out
}

func (c *Compose) images() []string {
	return []string{c.nodes()[0].Image, debianImage}
}

// write lays out the work directory: the override, what it mounts, and what the image of Debian's programs is made of.
func (c *Compose) write(ctx context.Context) error {
	if err := os.MkdirAll(c.o.Dir, 0o755); err != nil {
		return err
	}
	over := override{Services: map[string]serviceOverride{}, Volumes: map[string]volumeOverride{}}
	mounts, err := c.writeMounts()
	if err != nil {
		return err
	}
	for _, s := range c.nodes() {
		node := serviceOverride{Volumes: mounts}
		for _, arg := range slices.Concat(s.Command, c.o.Flags) {
			node.Command = append(node.Command, strings.ReplaceAll(arg, "$", "$$"))
		}
		over.Services[s.Name] = node
		over.Volumes[s.Name] = volumeOverride{Driver: "local", Options: map[string]string{
			"type": "none", "o": "bind", "device": c.disk(s.Name),
		}}
	}
	for name, entrypoint := range debianServices {
		over.Services[name] = serviceOverride{
			Image: debianImage, Build: map[string]string{"context": c.path("debian")}, User: "65534:65534", Entrypoint: entrypoint,
		}
	}
	if !sharedRoot(ctx) {
		exporter := over.Services["node-exporter"]
		exporter.Volumes = []string{"/:/host:ro"}
		over.Services["node-exporter"] = exporter
	}
	text, err := json.MarshalIndent(over, "", "  ") // JSON is YAML
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.path("override.json"), text, 0o644); err != nil {
		return err
	}
	return writeDebian(ctx, c.path("debian"))
}

// writeMounts writes the options' configuration and rules, and returns the volumes that take the place of the user's.
func (c *Compose) writeMounts() (volumes []string, err error) {
	if c.o.Config == "" {
		return nil, nil
	}
	if err := os.MkdirAll(filepath.Join(c.path("prometheus"), "rules"), 0o755); err != nil {
		return nil, err
	}
	return []string{c.path("prometheus") + ":/etc/prometheus:ro"}, c.Configure(c.o.Config, c.o.Rules)
}

// replaceFile makes path a new file, which whoever has the old one open does not see.
func replaceFile(path, content string) error {
	if err := os.WriteFile(path+".new", []byte(content), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
