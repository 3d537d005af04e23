// Copyright The Deucalion Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/deucaliondb/deucalion/internal/freeport"
)

// StockOptions say how Debian's Prometheus is started.
type StockOptions struct {
	Bin    string   // "" means the prometheus of PATH
	Dir    string   // of configuration and log
	Data   string   // data directory; "" means one below Dir
	Config string   // content of the configuration file
	Flags  []string // beyond addresses and paths
}

// Stock is a stock Prometheus with a port of its own that lasts until Close.
type Stock struct {
	*Server

	config string
	ports  freeport.Ports
}

// NewStock lays out a stock Prometheus without starting it.
func NewStock(o StockOptions) (*Stock, error) {
	s := &Stock{config: filepath.Join(o.Dir, "prometheus.yml")}
	port, err := s.ports.Take()
	if err != nil {
		return nil, err
	}
	if o.Bin == "" {
		o.Bin = "prometheus"
	}
	if o.Data == "" {
		o.Data = filepath.Join(o.Dir, "data")
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	if err := s.Configure(o.Config); err != nil {
		return nil, err
	}
	s.Server = &Server{
		Name: "stock",
		Addr: address(port),
		Dir:  o.Data,
		Log:  filepath.Join(o.Dir, "stock.log"),
		bin:  o.Bin,
		args: append([]string{
			"--config.file=" + s.config,
			"--storage.tsdb.path=" + o.Data,
			"--web.listen-address=" + address(port),
			"--storage.tsdb.retention.time=10y",
		}, o.Flags...),
	}
	return s, nil
}

// Configure writes the configuration file; a running server takes it up at Reload.
func (s *Stock) Configure(yaml string) error {
	if err := os.WriteFile(s.config, []byte(yaml), 0o644); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// Close kills the server and gives its port back.
func (s *Stock) Close() error {
	err := s.Kill()
	s.ports.Release()
	return err
}

// NewProgram lays out any other program with an HTTP port; args gets the address it must listen on.
func NewProgram(bin, dir string, ports *freeport.Ports, args func(addr string) []string) (*Server, error) {
	port, err := ports.Take()
	if err != nil {
		return nil, err
	}
	name := filepath.Base(bin)
	return &Server{
		Name: name,
		Addr: address(port),
		Dir:  dir,
		Log:  filepath.Join(dir, name+".log"),
		bin:  bin,
		args: args(address(port)),
	}, nil
}

// NewServer lays out a program whose address the caller chooses. command is the program and its arguments, which may be
// those of a Host first; dir and the directory of log must exist when it starts.
func NewServer(name, addr, dir, log string, command []string) *Server {
	return &Server{Name: name, Addr: addr, Dir: dir, Log: log, bin: command[0], args: command[1:]}
}
